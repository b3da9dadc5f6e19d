#!/usr/bin/env bash
# soundfile 0.14.0 (libsndfile 1.2.2): an ordinary MP3 file read in blocks.
#
# Guess: blocks one after another are the same samples as the whole file at once.
# Found: as many samples, but not the same, without an error. soundfile seeks to where it is after every read; the
# decoder then lacks bits that earlier frames hold for later ones; of a steady tone in blocks of 1000 nearly everything
# is lost, of noise in bursts a few per cent. Told that it cannot seek, it is right.
# asrkern tells it so (asrkern/data/recording.py, Recording.seekable; tests/data/test_audio.py,
# test_an_mp3_is_the_same_in_blocks).
#
# Output seen:
#   tone, blocks of 1000: wrong samples: over 90 %, level under a fifth: True
#   tone, blocks of 16000: wrong samples: over 10 %, level under a fifth: False
#   tone, blocks of 1000, not seekable: wrong samples: 0 %, level under a fifth: False
#   bursts, blocks of 1000: wrong samples: over 1 %, level under a fifth: False
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q soundfile==0.14.0 numpy==2.4.6 2>"$work/log" || { cat "$work/log"; exit 1; }
cat >"$work/blocks.py" <<'P'
import sys

import numpy as np
import soundfile

time = np.arange(20 * 16000) / 16000
noise = np.random.default_rng(0).standard_normal(len(time))
tone, bursts = 0.4 * np.sin(2 * np.pi * 300 * time), 0.3 * noise * (np.sin(4 * np.pi * time) > 0)


class Forward(soundfile.SoundFile):
    def seekable(self):
        return False


def wrong(size, kind=soundfile.SoundFile):
    whole, blocks = soundfile.read(sys.argv[1])[0], []
    with kind(sys.argv[1]) as file:
        while len(block := file.read(size)):
            blocks.append(block)
    blocks = np.concatenate(blocks)
    over = max(part for part in (0, 1, 10, 90) if np.mean(abs(blocks - whole) > 1e-3) >= part / 100)
    return f"wrong samples: {'over ' * (over > 0)}{over} %, level under a fifth: {blocks.std() < whole.std() / 5}"


soundfile.write(sys.argv[1], tone, 16000)
for size in (1000, 16000):
    print(f"tone, blocks of {size}:", wrong(size))
print("tone, blocks of 1000, not seekable:", wrong(1000, Forward))
soundfile.write(sys.argv[1], bursts, 16000)
print("bursts, blocks of 1000:", wrong(1000))
P
"$work/venv/bin/python" "$work/blocks.py" "$work/a.mp3" 2>"$work/log" | tee "$work/seen"
diff - "$work/seen" <<'P'
tone, blocks of 1000: wrong samples: over 90 %, level under a fifth: True
tone, blocks of 16000: wrong samples: over 10 %, level under a fifth: False
tone, blocks of 1000, not seekable: wrong samples: 0 %, level under a fifth: False
bursts, blocks of 1000: wrong samples: over 1 %, level under a fifth: False
P
