"""Words while they are spoken: from a microphone, or from a file in pieces of a tenth of a second.

python examples/stream.py [CHECKPOINT] [AUDIO | --microphone]

CHECKPOINT is a unidirectional DeepSpeech2 of asrkern train; without one, it is that of train.py. Without AUDIO, speech is
made up. Needs pip install 'asrkern[recognizer]'; the microphone needs pip install sounddevice, too.
"""

from __future__ import annotations

import argparse
import queue
import sys
from collections.abc import Iterator

import made_up
import torch
from torch import Tensor

import asrkern
from asrkern.data import read_stream


def from_file(path: str, rate: int) -> Iterator[Tensor]:
    """Chunks of 0.1 s; a pipe is read as it comes."""
    with open(path, "rb") as file:
        yield from read_stream(file, rate, chunk_seconds=0.1)


def microphone(rate: int) -> Iterator[Tensor]:
    """Chunks of 0.1 s until Ctrl-C."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: PortAudio, which it uses, is not there
        sys.exit(f"--microphone: expected sounddevice (pip install sounddevice) and PortAudio: {error}")
    arrived: queue.SimpleQueue[Tensor] = queue.SimpleQueue()

    def keep(samples, frames, time, status) -> None:
        arrived.put(torch.from_numpy(samples[:, 0].copy()))

    with sounddevice.InputStream(rate, rate // 10, channels=1, dtype="float32", callback=keep):
        print("listening; Ctrl-C ends it")
        try:
            while True:
                yield arrived.get()
        except KeyboardInterrupt:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint", nargs="?")
    parser.add_argument("audio", nargs="?")
    parser.add_argument("--microphone", action="store_true")
    options = parser.parse_args()
    recognizer = asrkern.load(options.checkpoint or made_up.checkpoint())
    rate = recognizer.features.sample_rate
    if options.microphone:
        chunks = microphone(rate)
    elif options.audio:
        chunks = from_file(options.audio, rate)
    else:
        chunks = iter(torch.from_numpy(made_up.speak(made_up.sentence(8, seed=1000), 1000)).split(rate // 10))

    told = ""
    # Fewer hypotheses agree sooner.
    for heard in recognizer.stream(low_latency=True, beam_width=8)(chunks):
        told = f"{told} {heard.text}".strip()  # these words stay
        print(f"{heard.seconds:5.1f} s: {told} | {heard.tail}")  # the tail may still change
    print(heard.transcript.text)


if __name__ == "__main__":
    main()
