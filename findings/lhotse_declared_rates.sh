#!/usr/bin/env bash
# lhotse 1.33.0: a rate that is declared and a recording that has another.
#
# Guess: where a recording's manifest says 16 kHz and its file is at 8 kHz, loading it is refused, at the latest when the
# number of samples does not fit; Kaldi's folders, which say no rates, get those of their files.
# Found: Kaldi's import gives every recording the rate that the caller passes, whatever the file says. Loading compares
# numbers of samples only, and lets half a second be missing, which it fills with a mirrored end: a recording of one
# second at 8 kHz arrives as one second "at 16 kHz" that plays it twice as fast and then its end backwards, and a tone of
# 440 Hz is at 879. Three seconds are refused.
# asrkern reads Kaldi folders and lhotse's manifests with readers of its own, which ask the files
# (tests/training/test_kaldi.py, tests/training/test_lhotse_manifests.py).
#
# Output seen:
#   1 s: 16000 samples at 16000 Hz, the tone at 879 Hz, mirrored: True
#   3 s: AudioLoadingError
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 lhotse==1.33.0 urllib3 soundfile 2>"$work/log" || { cat "$work/log"; exit 1; }
cat >"$work/rates.py" <<'P'
import sys
from pathlib import Path

import numpy as np
import soundfile
from lhotse.kaldi import load_kaldi_data_dir


def load(seconds):
    folder = Path(sys.argv[1]) / str(seconds)
    folder.mkdir()
    t = np.arange(seconds * 8000) / 8000
    soundfile.write(folder / "r.wav", 0.5 * np.sin(2 * np.pi * 440 * t), 8000, subtype="PCM_16")
    (folder / "wav.scp").write_text(f"r {folder}/r.wav\n")
    (folder / "text").write_text("r hello\n")
    (folder / "utt2spk").write_text("r s\n")
    recordings, *_ = load_kaldi_data_dir(folder, 16000)
    (recording,) = recordings
    try:
        (samples,) = recording.load_audio()
    except Exception as error:
        return f"{seconds} s: {type(error).__name__}"
    peak = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax() * recording.sampling_rate / len(samples)
    mirrored = np.array_equal(samples[8000:15999], samples[:7999][::-1])
    return f"{seconds} s: {len(samples)} samples at {recording.sampling_rate} Hz, the tone at {peak:.0f} Hz, mirrored: {mirrored}"


if __name__ == "__main__":
    for seconds in (1, 3):
        print(load(seconds))
P
"$work/venv/bin/python" "$work/rates.py" "$work" 2>"$work/log" | tee "$work/seen"
diff - "$work/seen" <<'P'
1 s: 16000 samples at 16000 Hz, the tone at 879 Hz, mirrored: True
3 s: AudioLoadingError
P
