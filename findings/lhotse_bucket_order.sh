#!/usr/bin/env bash
# lhotse 1.33.0: in what order DynamicBucketingSampler takes from its buckets, and whether all of them are emptied.
#
# Guess: with shuffle=True, the order in which short and long batches follow each other changes with set_epoch() and with
# seed; sync_buckets, which is there for several ranks, changes nothing for one; without drop_last every cut comes once.
# Found: only the cuts within a bucket change. The buckets are drawn by a generator of their own, which begins with the
# same number in each epoch and with each seed: the lengths of an epoch's batches are those of every other one, the
# incomplete ones always at the end. sync_buckets=False takes one generator for both, whose order does change, but then
# cuts are missing: an emptied bucket counts as one that has something left, and iteration ends when it is drawn.
# asrkern shuffles the batches once more (asrkern/training/batches.py; tests/training/test_corpus.py compares the orders of
# epochs and seeds).
#
# Output seen:
#   sync_buckets=True: orders of lengths correlate by 1.0; epochs without all of 400 cuts: 0 of 9
#   sync_buckets=False: orders of lengths correlate by 0.1; epochs without all of 400 cuts: 8 of 9
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 lhotse==1.33.0 urllib3 2>"$work/log" || { cat "$work/log"; exit 1; }
cat >"$work/order.py" <<'P'
from statistics import correlation, mean

from lhotse import CutSet, MonoCut, Recording
from lhotse.dataset.sampling import DynamicBucketingSampler


def cut(index):
    seconds = 1 + index * 37 % 100 / 10
    recording = Recording(f"r{index}", [], 16000, round(16000 * seconds), seconds, channel_ids=[0])
    return MonoCut(f"c{index}", 0, seconds, 0, recording=recording)


def epochs(sync):
    for seed in (0, 10, 20):
        for epoch in range(3):
            sampler = DynamicBucketingSampler(
                CutSet.from_cuts(map(cut, range(400))).to_eager(), max_duration=40, num_buckets=5, shuffle=True, seed=seed,
                sync_buckets=sync, world_size=1, rank=0,
            )
            sampler.set_epoch(epoch)
            yield [[c.duration for c in batch] for batch in sampler]


if __name__ == "__main__":
    for sync in (True, False):
        plans = list(epochs(sync))
        batches = min(map(len, plans))
        orders = [[max(batch) for batch in plan[:batches]] for plan in plans]
        alike = mean(correlation(a, b) for i, a in enumerate(orders) for b in orders[:i])
        counts = [sum(map(len, plan)) for plan in plans]
        print(
            f"sync_buckets={sync}: orders of lengths correlate by {abs(alike):.1f}; "
            f"epochs without all of 400 cuts: {sum(count < 400 for count in counts)} of {len(counts)}"
        )
P
"$work/venv/bin/python" "$work/order.py" 2>"$work/log" | tee "$work/seen"
diff - "$work/seen" <<'P'
sync_buckets=True: orders of lengths correlate by 1.0; epochs without all of 400 cuts: 0 of 9
sync_buckets=False: orders of lengths correlate by 0.1; epochs without all of 400 cuts: 8 of 9
P
