"""What the command says besides its results: the library's log, warnings and errors."""

import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from tqdm import tqdm

from lfgcl_env.cli.colour import paint

_LIBRARY = "lfgcl_env"


class MessageHandler(logging.Handler):
    """Writes the library's messages to standard error, without breaking a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message; from warnings on with its level."""
        level = ""
        if record.levelno >= logging.WARNING:
            level = paint(f"{record.levelname.lower()}: ", "yellow", sys.stderr)
        tqdm.write(f"lfgcl: {level}{record.getMessage()}", file=sys.stderr)


@contextmanager
def messages(*, verbose: bool, quiet: bool = False) -> Iterator[None]:
    """Show the library's messages, and every warning once, inside the block.

    Args:
        verbose: show the messages for its developers too.
        quiet: show warnings alone.
    """
    logger, handler = logging.getLogger(_LIBRARY), MessageHandler()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    least = logging.WARNING if quiet else logging.INFO
    logger.setLevel(logging.DEBUG if verbose else least)
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_show_warning, set())
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _show_warning(shown: set[str], message: Warning | str, *_: Any, **__: Any) -> None:
    text = sentence(message)
    if text not in shown:
        shown.add(text)
        logging.getLogger(_LIBRARY).warning("%s", text)


def sentence(error: object) -> str:
    r"""Return a message on one line, or the kind of an exception that has none.

    >>> sentence(ValueError("two\n  lines")), sentence(KeyError())
    ('two lines', 'KeyError')
    """
    return " ".join(str(error).split()) or type(error).__name__


def tell_error(error: BaseException, text: str, *, verbose: bool) -> None:
    """Write an error in one sentence, after its traceback if that is wanted."""
    if verbose:
        traceback.print_exception(error)
    print(f"lfgcl: {paint('error:', 'red', sys.stderr)} {text}", file=sys.stderr)
