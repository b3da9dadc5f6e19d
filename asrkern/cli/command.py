"""What all commands do alike: options are named as they are typed, and a reader that goes away ends them quietly."""

from __future__ import annotations

import os
import re
import select
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, TextIO

import typer
from typer.core import TyperCommand

# What a shell says of a program that a closed pipe has ended: 128 + SIGPIPE.
BROKEN_PIPE = 141

# Of the running command: parameter → option.
_options: ContextVar[Mapping[str, str]] = ContextVar("options")


class Command(TyperCommand):
    """A command of asrkern's."""

    def invoke(self, ctx: Any) -> object:
        """Run it."""
        options = {
            p.name: max(p.opts, key=len) for p in self.params if p.name and p.param_type_name == "option"
        }
        token = _options.set(options)
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            closed = closed_outputs()
            if not closed:
                raise
            with open(os.devnull, "wb") as nowhere:
                for stream in closed:
                    # What it still holds would be written at exit.
                    os.dup2(nowhere.fileno(), stream.fileno())
            raise typer.Exit(BROKEN_PIPE) from None
        finally:
            _options.reset(token)


def as_typed(message: str) -> str:
    """A message of the library that names the running command's options as they are typed: --lm-case, not lm_case.

    ``name=value`` becomes ``--name value``; names of one word are options only where they begin what is said of them.
    """
    options = _options.get({})
    if not options:
        return message
    names = "|".join(map(re.escape, sorted(options, key=len, reverse=True)))
    # Not within paths, dotted keys, quotes and calls.
    found = rf"(?<![\w./\\'\"(-])(?P<name>{names})(?:='?(?P<value>[\w.-]+)'?|\b(?!=|['\"./\\]\w))"

    def typed(match: re.Match[str]) -> str:
        name = match["name"]
        if match["value"]:
            return f"{options[name]} {match['value']}"
        before, after = message[: match.start()], message[match.end() :]
        begins = after.startswith(":") and (not before or before.endswith((": ", "; ")))
        return options[name] if begins or "_" in name else match[0]

    return re.sub(found, typed, message)


def closed_outputs() -> list[TextIO]:
    """Those of stdout and stderr that are pipes whose reader is gone."""
    found = []
    for stream in (sys.stdout, sys.stderr):
        try:
            poll = select.poll()
            poll.register(stream.fileno(), 0)
        except (OSError, ValueError):  # no file
            continue
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
            found.append(stream)
    return found
