"""Code named as ``"module:function"``: importing it runs it, so it matters who names it.

A user's own argument may name any code. A file (a run folder, a saved network, a line of a
leaderboard) may name this package's and torchvision's networks and this package's agents only,
unless its reader is told to trust it.
"""

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

from lfgcl_env.edge.choices import closest

_left: dict[str, None] = {}  # folders that were importable for a moment, in their order

_SAFE = re.compile(r"torchvision:\w+|lfgcl_env\.(agents|baselines)\.\w+:\w+", re.ASCII)


def names_code(name: object) -> bool:
    """Whether a name makes its reader import code besides torchvision's and this package's agents.

    >>> names_code("my_package.models:build"), names_code("resnet56")
    (True, False)
    >>> names_code("torchvision:resnet18"), names_code("lfgcl_env.baselines.amc:make")
    (False, False)
    >>> names_code("lfgcl_env.baselines.amc:os.system")
    True
    """
    return isinstance(name, str) and ":" in name and not _SAFE.fullmatch(name)


def refuse_code(name: object, where: str, how: str, *, trust: bool) -> None:
    """Refuse a name that a file gives, if it would run code.

    Args:
        name: read from the file.
        where: the file, for the message.
        how: tells how to give the code oneself, such as ``"pass network=build"``.
        trust: whether the reader was told to trust the file.

    Raises:
        ValueError: if it names code and is not trusted.
    """
    if names_code(name) and not trust:
        raise ValueError(
            f"{where} names {name!r}, and importing it would run somebody's code: {how}"
        )


def import_named(name: str, what: str) -> Callable[..., Any]:
    """Import what ``"module:function"`` names.

    Args:
        name: given by the user, or trusted.
        what: the kind of thing, such as ``"network"``; for messages.

    Raises:
        ValueError: if it cannot be imported, whatever the module raised, or is no function.
        ImportError: if one of this package's modules lacks a package; names the extra to install.
    """
    module_name, _, path = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # a module may raise anything, SystemExit too
        if isinstance(error, ImportError) and module_name.startswith("lfgcl_env."):
            raise
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ValueError(
            f"cannot import {module_name!r} of {what} {name!r} ({reason}): give an importable "
            "'module:function'"
        ) from error
    try:
        found = attrgetter(path)(module)
    except AttributeError as error:
        near = closest(path, vars(module))
        raise ValueError(f"module {module_name!r} has no {path!r}.{near}") from error
    if not callable(found):
        raise ValueError(f"{what} {name!r} is not callable: a function is needed")
    return found  # type: ignore[no-any-return]


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """Let the current folder's modules be imported inside the block, after all others."""
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.append(here)
        _left[here] = None
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def folders_of_own_code() -> tuple[str, ...]:
    """Return the folders that were importable for a moment; another process needs them as well."""
    return tuple(_left)


def make_importable(folders: Iterable[str]) -> None:
    """Let modules be imported from folders, after all others, for as long as this process lives."""
    sys.path.extend(folder for folder in folders if folder not in sys.path)
