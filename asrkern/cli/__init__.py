"""The command line: ``asrkern COMMAND``, or ``python -m asrkern COMMAND``."""

from __future__ import annotations

import sys

from asrkern._optional import needs


def run() -> None:
    """Run the command that ``sys.argv`` names; says what is missing if the extra ``cli`` is not installed."""
    try:
        needs("cli")
    except ImportError as error:
        sys.exit(f"asrkern: {error}")
    from asrkern.cli.app import app

    app(prog_name="asrkern")
