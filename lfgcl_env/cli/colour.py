"""Colours of messages and headings, on terminals alone."""

import os
import sys
from typing import Any

_CODES = {"red": "31", "yellow": "33", "bold": "1"}


def paint(text: str, how: str, stream: Any = None) -> str:
    """Return text in a colour, if a stream is a terminal that shows it.

    ``NO_COLOR`` (no-color.org) and ``TERM=dumb`` turn colours off.

    Args:
        text: to be coloured.
        how: ``"red"``, ``"yellow"`` or ``"bold"``.
        stream: that it is written to; standard output by default.
    """
    stream = sys.stdout if stream is None else stream
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not _is_terminal(stream):
        return text
    return f"\033[{_CODES[how]}m{text}\033[0m"


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # a closed stream, or none
        return False
