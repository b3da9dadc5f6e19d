#!/usr/bin/env bash
# soundfile 0.14.0 (libsndfile 1.2.2): FLAC that does not say how long it is, as encoders write it to a pipe.
#
# Guess: reading in blocks from start to end needs no length and gives all.
# Found: libsndfile says 2^63 - 1 frames and that it can seek; soundfile seeks to where it is after every read. At the
# end of the audio that fails: the read that reaches it raises an error and loses what it decoded; the blocks before it
# are right. A recording of one block gives nothing. Told that it cannot seek, soundfile reads all.
# asrkern tells it so (asrkern/data/recording.py, Recording.seekable; tests/data/test_audio.py,
# test_a_flac_that_does_not_tell_its_length_is_read_to_its_end).
#
# Output seen:
#   blocks of 4096: 98304 of 9223372036854775807, right: True, then LibsndfileError: Internal psf_fseek() failed.
#   one block: 0 of 9223372036854775807, right: True, then LibsndfileError: Internal psf_fseek() failed.
#   blocks of 4096, not seekable: 100000 of 9223372036854775807, right: True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q soundfile==0.14.0 numpy==2.4.6 2>"$work/log" || { cat "$work/log"; exit 1; }
cat >"$work/flac.py" <<'P'
import sys

import numpy as np
import soundfile

right = np.random.default_rng(0).integers(-3000, 3000, 100_000, np.int16)
soundfile.write(sys.argv[1], right, 16000)
with open(sys.argv[1], "r+b") as file:
    high = file.read(22)[21] & 0xF0
    file.seek(21)
    file.write(bytes([high, 0, 0, 0, 0]))  # STREAMINFO's number of samples, 36 bits


class Forward(soundfile.SoundFile):
    def seekable(self):
        return False


def read(name, size, kind=soundfile.SoundFile):
    got, then = right[:0], ""
    with kind(sys.argv[1]) as file:
        try:
            while len(block := file.read(size, dtype="int16")):
                got = np.append(got, block)
        except soundfile.LibsndfileError as error:
            then = f", then LibsndfileError: {error}"
    same = np.array_equal(got, right[: len(got)])
    print(f"{name}: {len(got)} of {file.frames}, right: {same}{then}")


read("blocks of 4096", 4096)
read("one block", 100_000)
read("blocks of 4096, not seekable", 4096, Forward)
P
"$work/venv/bin/python" "$work/flac.py" "$work/a.flac" 2>"$work/log" | tee "$work/seen"
diff - "$work/seen" <<'P'
blocks of 4096: 98304 of 9223372036854775807, right: True, then LibsndfileError: Internal psf_fseek() failed.
one block: 0 of 9223372036854775807, right: True, then LibsndfileError: Internal psf_fseek() failed.
blocks of 4096, not seekable: 100000 of 9223372036854775807, right: True
P
