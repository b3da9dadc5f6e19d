#!/usr/bin/env bash
# soundfile 0.14.0 (libsndfile 1.2.2): MP3 of variable bit rate without the frame that tells its length (Xing).
#
# Guess: such a file is read to its end; the number of frames said before may be an estimate.
# Found: the estimate (the file's size by the first frame's bit rate) is what is read. Where the first frame took more
# bits than most, the rest is missing without a word: 3 of 20 seconds of a tone that follows noise. Where it took fewer
# (silence first), read() gives all, and blocks() repeats its last block until the estimate is reached.
# asrkern reads such files to their end (asrkern/data/recording.py, _Part; tests/data/test_audio.py,
# test_an_mp3_that_does_not_tell_its_length_is_read_to_its_end).
#
# Output seen:
#   noise, then a tone, with Xing: 20 s said, 20 s read, 20 s in blocks
#   noise, then a tone, without: 3 s said, 3 s read, 3 s in blocks
#   silence, then noise, with Xing: 20 s said, 20 s read, 20 s in blocks
#   silence, then noise, without: 73 s said, 20 s read, 73 s in blocks, of which 52 repeat
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q soundfile==0.14.0 numpy==2.4.6 2>"$work/log" || { cat "$work/log"; exit 1; }
cat >"$work/xing.py" <<'P'
import sys

import numpy as np
import soundfile

RATE = 16000
path = sys.argv[1]
noise = 0.2 * np.random.default_rng(0).standard_normal(20 * RATE)
tone = 0.2 * np.sin(2 * np.pi * 300 * np.arange(20 * RATE) / RATE)


def show(name):
    blocks = list(soundfile.blocks(path, RATE))
    repeats = sum(np.array_equal(*pair) for pair in zip(blocks, blocks[1:]))
    seconds = (n / RATE for n in (soundfile.info(path).frames, len(soundfile.read(path)[0]), sum(map(len, blocks))))
    said = "{:.0f} s said, {:.0f} s read, {:.0f} s in blocks".format(*seconds)
    print(f"{name}: {said}" + f", of which {repeats} repeat" * (repeats > 0))


for name, first, then in (("noise, then a tone", noise, tone), ("silence, then noise", 0 * noise, noise)):
    samples = np.concatenate([first[:RATE], then[RATE:]])
    soundfile.write(path, samples, RATE, bitrate_mode="VARIABLE")
    show(f"{name}, with Xing")
    content = open(path, "rb").read()
    assert b"Xing" in content[:40]
    with open(path, "wb") as file:
        file.write(content[content.index(content[:2], 40) :])
    show(f"{name}, without")
P
"$work/venv/bin/python" "$work/xing.py" "$work/a.mp3" 2>"$work/log" | tee "$work/seen"
diff - "$work/seen" <<'P'
noise, then a tone, with Xing: 20 s said, 20 s read, 20 s in blocks
noise, then a tone, without: 3 s said, 3 s read, 3 s in blocks
silence, then noise, with Xing: 20 s said, 20 s read, 20 s in blocks
silence, then noise, without: 73 s said, 20 s read, 73 s in blocks, of which 52 repeat
P
