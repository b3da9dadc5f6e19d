#!/usr/bin/env bash
# soxr 1.1.0 (the Python package): 16-bit samples from 16 to 8 kHz, at once and in two pieces.
#
# Guess: 16-bit samples give what floating point gives, rounded; digital silence stays silent, and pieces give the samples
# of the whole, as they do in floating point.
# Found: for 16-bit samples soxr adds a dither of one step. Silence becomes noise of -1, 0 and 1, a third of the samples
# differ from the rounded ones, and a quarter of those from pieces differ from the whole's: a detector of digital silence
# finds none, and a stream is not its file.
# asrkern resamples in floating point, whatever it is given (asrkern/data/resampling.py; tests/data/test_resampling.py).
#
# Output seen:
#   silence becomes [-1, 0, 1]
#   int16 against float64, rounded: between 0.2 and 0.5 of the samples differ, by at most 1
#   two pieces against the whole: float32 equal, int16 not equal
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q soxr==1.1.0 numpy 2>"$work/log" || { cat "$work/log"; exit 1; }
cat >"$work/dither.py" <<'P'
import numpy as np
import soxr

RATES = (16000, 8000)
noise = (np.random.default_rng(0).standard_normal(16000) * 3000).astype(np.int16)

silence = soxr.resample(np.zeros(16000, np.int16), *RATES)
print("silence becomes", np.unique(silence).tolist())

away = np.abs(soxr.resample(noise, *RATES) - np.round(soxr.resample(noise.astype(np.float64), *RATES)))
share = (away > 0).mean()
print(
    f"int16 against float64, rounded: {'between 0.2 and 0.5' if 0.2 < share < 0.5 else share} of the samples differ, "
    f"by at most {int(away.max())}"
)


def same(dtype):
    samples = noise.astype(dtype)
    stream = soxr.ResampleStream(*RATES, 1, dtype=dtype)
    pieces = [stream.resample_chunk(samples[:7000]), stream.resample_chunk(samples[7000:], last=True)]
    return "equal" if np.array_equal(np.concatenate(pieces), soxr.resample(samples, *RATES)) else "not equal"


print(f"two pieces against the whole: float32 {same('float32')}, int16 {same('int16')}")
P
"$work/venv/bin/python" "$work/dither.py" | tee "$work/seen"
diff - "$work/seen" <<'P'
silence becomes [-1, 0, 1]
int16 against float64, rounded: between 0.2 and 0.5 of the samples differ, by at most 1
two pieces against the whole: float32 equal, int16 not equal
P
