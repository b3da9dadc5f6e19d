#!/usr/bin/env bash
# Ray 2.60.0: at what priority an actor of a local cluster computes.
#
# Guess: at that of the program that called ray.init(), as processes of multiprocessing do.
# Found: 15 steps nicer. Beside any other work of the machine actors get a few percent of the processor, and a pool of them
# that is as fast as plain processes on an idle machine falls far behind on a busy one. `_system_config` or the
# environment variable RAY_worker_niceness of the one who starts the cluster changes it.
# asrkern starts its clusters with a niceness of 0 more (asrkern/corpus/cluster.py; tests/corpus/test_ray.py).
#
# Output seen:
#   steps nicer than the program: multiprocessing 0, an actor of Ray 15, with worker_niceness 0: 0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q ray==2.60.0 2>"$work/log" || { cat "$work/log"; exit 1; }
cat >"$work/niceness.py" <<'P'
import multiprocessing
import os

import ray


@ray.remote
class Actor:
    def niceness(self):
        return os.nice(0)


def of_an_actor(**options):
    ray.init("local", num_cpus=1, include_dashboard=False, logging_level="ERROR", **options)
    found = ray.get(Actor.remote().niceness.remote())
    ray.shutdown()
    return found - os.nice(0)


def of_a_process(pipe):
    pipe.send(os.nice(0))


if __name__ == "__main__":
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=of_a_process, args=(theirs,))
    process.start()
    plain = ours.recv() - os.nice(0)
    process.join()
    print(
        f"steps nicer than the program: multiprocessing {plain}, an actor of Ray {of_an_actor()}, "
        f"with worker_niceness 0: {of_an_actor(_system_config={'worker_niceness': 0})}"
    )
P
"$work/venv/bin/python" "$work/niceness.py" 2>"$work/log" | tee "$work/seen" || cat "$work/log"
diff - "$work/seen" <<'P'
steps nicer than the program: multiprocessing 0, an actor of Ray 15, with worker_niceness 0: 0
P
