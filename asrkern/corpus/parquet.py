"""The rows of a job as one Parquet file, for tools that read tables."""

from __future__ import annotations

import json
from dataclasses import fields
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from asrkern._atomic_write import atomic_write
from asrkern._optional import require
from asrkern.corpus.rows import ROWS
from asrkern.recognizer.transcription import SpokenSegment, SpokenWord

TABLE = "transcripts.parquet"
# Rows that are in memory at once.
_GROUP_ROWS = 10_000


def write_parquet(folder: Path) -> Path:
    """Write ``transcripts.parquet`` beside a job's ``transcripts.jsonl``: the same rows in the same order.

    Columns: ``entry`` int64; ``file``, ``text``, ``class``, ``error`` strings; ``offset``, ``seconds``, ``probability``
    float64; ``words`` and ``segments``, lists with the fields of :class:`asrkern.recognizer.SpokenWord` and
    :class:`asrkern.recognizer.SpokenSegment`. What a row does not have is null.

    Args:
        folder: of a job that has ended.

    Returns:
        The file's path.

    Raises:
        ImportError: pyarrow is not installed.
        OSError: the rows cannot be read, or the file not be written; a file that was there is untouched.
    """
    pyarrow, parquet = require("pyarrow", "parquet"), require("pyarrow.parquet", "parquet")
    schema = _schema(pyarrow)
    target = folder / TABLE
    with (
        (folder / ROWS).open("rb") as lines,
        atomic_write(target) as path,
        parquet.ParquetWriter(path, schema, compression="zstd") as writer,
    ):
        rows = map(_row, lines)
        while group := list(islice(rows, _GROUP_ROWS)):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))
    return target


def _row(line: bytes) -> dict[str, Any]:
    row = json.loads(line)
    # Names of files may be no Unicode, which Parquet's strings are.
    return row | {
        name: row[name].encode("utf-8", "backslashreplace").decode()
        for name in ("file", "error")
        if name in row
    }


def _schema(pyarrow: ModuleType) -> Any:
    text, number = pyarrow.string(), pyarrow.float64()

    def each(kind: type) -> Any:
        return pyarrow.list_(
            pyarrow.struct([(f.name, {"str": text, "float": number}[str(f.type)]) for f in fields(kind)])
        )

    return pyarrow.schema(
        [
            pyarrow.field("entry", pyarrow.int64(), nullable=False),
            ("file", text),
            ("offset", number),
            ("seconds", number),
            ("text", text),
            ("words", each(SpokenWord)),
            ("segments", each(SpokenSegment)),
            ("class", text),
            ("probability", number),
            ("error", text),
        ]
    )
