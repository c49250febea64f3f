"""Files of a run that grow by lines, each safely on disk before what comes next."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

_LONGEST_LINE = 2**20

_Read = TypeVar("_Read")


class RunWriteError(OSError):
    """A run folder that could be written at first cannot be written any more."""


def read_lines(path: Path, parse: Callable[[str, str], _Read]) -> list[_Read]:
    """Read a file line by line; a last line that was cut short is dropped.

    Args:
        path: of the file; one that is missing has no lines.
        parse: makes something of a line, and is given what names it in errors.

    Raises:
        ValueError: from ``parse``, or if a line is too long or there is no file.
    """
    if not path.exists():
        return []
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    found: list[_Read] = []
    with path.open("rb") as file:
        while (line := file.readline(_LONGEST_LINE)).endswith(b"\n"):
            text = line.decode("utf-8", errors="replace")
            found.append(parse(text, f"{path}, line {len(found) + 1}"))
    if len(line) == _LONGEST_LINE:
        raise ValueError(f"{path}, line {len(found) + 1} is too long")
    return found


@contextmanager
def open_lines(path: Path) -> Iterator[Callable[[str], None]]:
    """Yield a function that adds a line, safely on disk.

    Raises:
        RunWriteError: if the file cannot be opened; from the function if it cannot be written.
    """

    def failed(error: OSError) -> RunWriteError:
        return RunWriteError(f"cannot write {path}: {error.strerror}")

    try:
        file = path.open("ab", buffering=0)
    except OSError as error:
        raise failed(error) from error
    with file:

        def add(line: str) -> None:
            try:
                file.write(f"{line}\n".encode())
                os.fsync(file.fileno())
            except OSError as error:
                raise failed(error) from error

        yield add
