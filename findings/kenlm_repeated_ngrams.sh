#!/usr/bin/env bash
# kenlm 0.3.0: an ARPA file in which n-grams stand twice.
#
# Guess: KenLM, which checks an ARPA file's counts and order strictly, refuses an n-gram that is there twice, or warns.
# Found: it loads without a word. Of a unigram or bigram the first line counts; of <unk> the last.
# asrkern reads such files with the same scores and a warning that names the line (tests/decoder/test_arpa_kinds.py).
#
# Output seen:
#   red, -0.6 then -2.6: -0.6
#   red car, -0.3 then -2.3: -0.3
#   <unk>, -1.2 then -3.2: -3.2
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q kenlm==0.3.0 2>"$work/log" || { cat "$work/log"; exit 1; }
cat >"$work/repeats.py" <<'P'
import sys

import kenlm

UNIGRAMS = ["-1.2\t<unk>", "-99\t<s>\t0", "-0.8\t</s>", "-0.6\tred\t0", "-0.9\tcar\t0"]
BIGRAMS = ["-0.3\tred car"]


def score(words, unigrams=(), bigrams=()):
    lines = [[*UNIGRAMS, *unigrams], [*BIGRAMS, *bigrams]]
    with open(sys.argv[1], "w") as file:
        file.write("\\data\\\n" + "".join(f"ngram {n}={len(part)}\n" for n, part in enumerate(lines, 1)))
        for n, part in enumerate(lines, 1):
            file.write(f"\n\\{n}-grams:\n" + "\n".join(part) + "\n")
        file.write("\n\\end\\\n")
    *_, (last, _, _) = kenlm.Model(sys.argv[1]).full_scores(words, bos=False, eos=False)
    return round(last, 3)


print("red, -0.6 then -2.6:", score("red", unigrams=["-2.6\tred\t0"]))
print("red car, -0.3 then -2.3:", score("red car", bigrams=["-2.3\tred car"]))
print("<unk>, -1.2 then -3.2:", score("blue", unigrams=["-3.2\t<unk>"]))
P
"$work/venv/bin/python" "$work/repeats.py" "$work/lm.arpa" 2>"$work/log" | tee "$work/seen"
diff - "$work/seen" <<'P'
red, -0.6 then -2.6: -0.6
red car, -0.3 then -2.3: -0.3
<unk>, -1.2 then -3.2: -3.2
P
