"""``python -m asrkern``, also ``asrkern``: runs a command; without one says what is active on this machine."""

from __future__ import annotations

import sys

from asrkern import _threads


def main() -> None:
    """Run a command, or say what is active."""
    arguments = sys.argv[1:]
    try:
        count, reason = _threads.choose()
        if arguments in ([], ["report"]):
            # Without the extra cli, too: it may be what is missing.
            from asrkern import _report

            print(_report.block() if arguments else _report.lines())
            return
    except (ImportError, RuntimeError, ValueError) as error:
        sys.exit(f"asrkern: {error}")
    if count is not None:
        print(f"asrkern: {count} threads, by {reason}", file=sys.stderr)
    from asrkern.cli import run

    run()


if __name__ == "__main__":
    main()
