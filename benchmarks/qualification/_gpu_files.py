"""Files that a kill leaves whole, and rows on disk, a JSON object a line, of which it may leave half. No torch."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Another file beside this one, which takes its place when it is written."""
    part = path.with_name(f"{path.name}.part")
    yield part
    part.replace(path)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that are whole; none without a file."""
    rows = []
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "group" in row:
            rows.append(row)
    return rows


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write all rows in the file's place."""
    with whole(path) as part:
        part.write_text("".join(json.dumps(row) + "\n" for row in rows))
