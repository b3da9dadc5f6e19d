#!/usr/bin/env bash
# soundfile 0.14.0 (libsndfile 1.2.2): seeking in Ogg Vorbis.
#
# Guess: after seek(n), reading gives what reading from the start gives from frame n on, wherever n is.
# Found: not in the last page of the file, here its last third of a second, of a sweep four seconds. But for the first
# few hundred frames of the page, seek(n) lands further on, by as many frames as the encoder's last block reaches
# beyond the end of the recording (here to 400,128). tell() says n, and as many frames come as are left after n, of
# which the last are not the recording's.
# asrkern seeks to a place well before the last page and reads on from there (asrkern/data/recording.py, skip;
# tests/data/test_audio.py, test_a_part_is_that_of_the_whole).
#
# Output seen:
#   400000 frames: 0 off at 200000, 128 off at 399000, told 399000, 1000 follow
#   400001 frames: 0 off at 200000, 127 off at 399001, told 399001, 1000 follow
#   400003 frames: 0 off at 200000, 125 off at 399003, told 399003, 1000 follow
#   400100 frames: 0 off at 200000, 28 off at 399100, told 399100, 1000 follow
#   400128 frames: 0 off at 200000, 0 off at 399128, told 399128, 1000 follow
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q soundfile==0.14.0 numpy==2.4.6 2>"$work/log" || { cat "$work/log"; exit 1; }
cat >"$work/seek.py" <<'P'
import sys

import numpy as np
import soundfile

noise = 0.1 * np.random.default_rng(0).standard_normal(400_128)
for frames in (400_000, 400_001, 400_003, 400_100, 400_128):
    soundfile.write(sys.argv[1], noise[:frames], 16000, subtype="VORBIS")
    right, _ = soundfile.read(sys.argv[1], dtype="float32")
    assert len(right) == frames

    def off(at):
        with soundfile.SoundFile(sys.argv[1]) as file:
            file.seek(at)
            told, got = file.tell(), file.read(dtype="float32")
        (by,) = [d for d in range(-500, 501) if np.allclose(got[:400], right[at + d : at + d + 400], atol=1e-5)]
        return by, told, len(got)

    by, told, follow = off(frames - 1000)
    print(
        f"{frames} frames: {off(200_000)[0]} off at 200000, {by} off at {frames - 1000}, told {told}, {follow} follow"
    )
P
"$work/venv/bin/python" "$work/seek.py" "$work/a.ogg" 2>"$work/log" | tee "$work/seen"
diff - "$work/seen" <<'P'
400000 frames: 0 off at 200000, 128 off at 399000, told 399000, 1000 follow
400001 frames: 0 off at 200000, 127 off at 399001, told 399001, 1000 follow
400003 frames: 0 off at 200000, 125 off at 399003, told 399003, 1000 follow
400100 frames: 0 off at 200000, 28 off at 399100, told 399100, 1000 follow
400128 frames: 0 off at 200000, 0 off at 399128, told 399128, 1000 follow
P
