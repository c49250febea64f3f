"""Writing files whole or not at all, and nowhere but in their folder."""

import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lfgcl_env.edge.schema import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PARTIAL = re.compile(r".+\.[0-9a-f]{16}\.partial")


def as_path(value: object, what: str) -> Path:
    """Return what names a file as a path.

    Args:
        value: text, or a path of any kind.
        what: names it in the message.

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(value, str | Path) or (isinstance(value, os.PathLike) and _is_text(value)):
        return Path(value)
    raise ValueError(f"{what} must be a path, got {short(value)}")


def _is_text(value: "os.PathLike[Any]") -> bool:
    return isinstance(os.fspath(value), str)


def write_beside(path: Path, write: Callable[[Path], object]) -> Path:
    """Write a file beside ``path`` and rename it, so that ``path`` is never half-written.

    The file beside it is made here, under a random name and never through a link. A link at
    ``path`` is replaced, not followed.

    Args:
        path: the file to write.
        write: writes it at the path that it is given.

    Returns:
        ``path``.

    Raises:
        OSError: if it cannot be written; nothing half-written stays.
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        write(partial)
        os.replace(partial, path)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
    except Exception as error:
        _check_space(path, partial, error)
        raise
    finally:
        remove_file(partial)
    return path


def _check_space(path: Path, partial: Path, error: Exception) -> None:
    """Raise OSError if nothing more can be written: on a full disk PyTorch raises others."""
    try:
        with partial.open("ab") as file:
            file.write(bytes(2**16))
    except OSError as full:
        raise OSError(f"cannot write {path}: {full.strerror or full}") from error


def write_text(path: Path, text: str) -> None:
    """Write a file of text, beside it first and then renamed, see :func:`write_beside`."""
    write_beside(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_png(path: Path, figure: "Figure") -> Path:
    """Write a figure of matplotlib as a PNG, beside it first, see :func:`write_beside`."""
    return write_beside(path, lambda partial: figure.savefig(partial, format="png"))


def remove_file(path: Path) -> None:
    """Remove a file if there is one; links and folders are left alone.

    Raises:
        OSError: if it cannot be removed.
    """
    if path.is_file() and not path.is_symlink():
        path.unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Remove the files beside others that a killed process left in a folder.

    Raises:
        OSError: if one cannot be removed.
    """
    for path in folder.glob("*.partial"):
        if _PARTIAL.fullmatch(path.name):
            remove_file(path)


def check_links(folder: Path) -> None:
    """Refuse a folder that holds a link out of it, through which a file elsewhere would be written.

    The folder itself may be a link. Folders in it are looked into, those in them are not.

    Raises:
        ValueError: if it holds one; the message names it.
    """
    real = folder.resolve()
    for path in _entries(folder):
        if path.is_symlink() and not path.resolve().is_relative_to(real):
            raise ValueError(
                f"{path} is a link out of {folder}, so nothing is written there: remove it, or "
                "give another folder"
            )


def _entries(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from path.iterdir()
