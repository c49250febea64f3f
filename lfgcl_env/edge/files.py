"""Writing files whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_beside(path: Path, write: Callable[[Path], object]) -> Path:
    """Write a file beside ``path`` and rename it, so that ``path`` is never half-written.

    Args:
        path: the file to write.
        write: writes it at the path that it is given.

    Returns:
        ``path``.

    Raises:
        OSError: if it cannot be written; nothing half-written stays.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file of text, beside it first and then renamed, see :func:`write_beside`."""
    write_beside(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_png(path: Path, figure: "Figure") -> Path:
    """Write a figure of matplotlib as a PNG, beside it first, see :func:`write_beside`."""
    return write_beside(path, lambda partial: figure.savefig(partial, format="png"))
