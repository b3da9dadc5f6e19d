"""In a process of its own: the calls of the benchmarks, by the asrkern of another folder."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

GROUPS = ("layers", "decoder")


def serve(tree: str, threads: int, group: str, wanted: str, data: str | None, connection: Connection) -> None:
    """Prepare each row of ``group`` that has ``wanted`` in its name and send (name, text, numbers) of its output; then a
    call's seconds for each True that comes; a False goes on to the next row. After the last one None is sent.

    The rows are of the benchmarks that this file belongs to, the package is the one in ``tree``.
    """
    sys.path.insert(0, tree)
    import asrkern

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    assert Path(asrkern.__file__).resolve().is_relative_to(Path(tree).resolve())
    import torch

    from benchmarks._timing import Block

    torch.set_num_threads(threads)
    for name, prepare in {"layers": _layers, "decoder": _decoder}[group](data):
        if wanted not in name:
            continue
        call = prepare()
        connection.send((name, *call()))
        block = Block(call)
        while connection.recv():
            connection.send(block.seconds())
    connection.send(None)


def _layers(_: str | None) -> Iterator[tuple[str, Callable[[], Callable[[], Any]]]]:
    """asrkern's column of ``layers.py --quick``."""
    from benchmarks.peers import layers

    def prepare(backends: dict[str, Any]) -> Callable[[], Any]:
        call = backends[layers.ASRKERN]()
        return lambda: ("", [value.detach().numpy() for value in call()])

    for name, group in layers.GROUPS.items():
        if name in ("gru-quantized", "lstm-quantized"):
            continue  # their float32 columns are those of gru and lstm
        for row in group.quick:
            yield f"{name}, {row}", lambda group=group, row=row: prepare(group.backends(row))


def _decoder(data: str | None) -> Iterator[tuple[str, Callable[[], Callable[[], Any]]]]:
    """asrkern's columns of ``ctc_beam.py``."""
    from benchmarks.decoder import _peers, ctc_beam

    def prepare(call: Callable[[], Any], log_probs: Any) -> Callable[[], Any]:
        search = call()

        def decode() -> tuple[str, list[np.ndarray]]:
            best = search(log_probs)
            return best.text, [np.array(best.score)]

        return decode

    with tempfile.TemporaryDirectory() as folder:
        read = ctc_beam.read_data(None if data is None else Path(data), Path(folder, "lm.arpa"))
    for name, (_, rows) in ctc_beam.GROUPS.items():
        for row in rows(read, False):
            for column, call in row.calls.items():
                if column not in (_peers.FLASHLIGHT, _peers.PYCTCDECODE):
                    title = ", ".join(dict.fromkeys([name, row.name, column]))
                    yield title, lambda call=call, row=row: prepare(call, row.log_probs)
