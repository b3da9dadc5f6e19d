"""Rows on disk, a JSON object a line, of which a kill may leave half. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def read(path: Path) -> list[dict[str, Any]]:
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


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write all rows in the file's place; never half a file."""
    part = path.with_name(f"{path.name}.part")
    part.write_text("".join(json.dumps(row) + "\n" for row in rows))
    part.replace(path)
