"""Files of many forms, written by PyAV."""

from __future__ import annotations

from pathlib import Path

import numpy as np

# Suffix, codec, and whether the form has pictures, too.
FORMS = [
    ("m4a", "aac", False),
    ("mp4", "aac", True),
    ("webm", "libopus", False),
    ("mkv", "libopus", True),
    ("wma", "wmav2", False),
    ("aac", "aac", False),
    ("wv", "wavpack", False),
    ("avi", "mp2", True),
    ("mpg", "mp2", True),
]


def sines(seconds: float, rate: int) -> np.ndarray:
    """Another tone each second, [samples]."""
    time = np.arange(round(seconds * rate)) / rate
    return 0.3 * np.sin(2 * np.pi * (300 + 100 * np.floor(time)) * time)


def write(path: Path, codec: str, pictures: bool = False, seconds: float = 6.0, rate: int = 48000) -> Path:
    """A stereo file whose mean is the sines."""
    import av

    with av.open(str(path), "w") as container:
        if pictures:
            video = container.add_stream("mpeg4" if path.suffix != ".mpg" else "mpeg1video", rate=25)
            video.width = video.height = 64
        audio = container.add_stream(codec, rate=rate, layout="stereo")
        audio.bit_rate = 192_000
        mono = sines(seconds, rate)
        samples = np.stack([1.5 * mono, 0.5 * mono]).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        frame.rate = rate
        for resampled in av.AudioResampler(audio.format, "stereo", rate, audio.frame_size or 1024).resample(
            frame
        ):
            container.mux(audio.encode(resampled))
        container.mux(audio.encode(None))
        if pictures:
            for _ in range(25):
                container.mux(video.encode(av.VideoFrame(64, 64, "yuv420p")))
            container.mux(video.encode(None))
    return path
