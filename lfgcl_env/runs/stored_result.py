"""Results of a run that can be found again: a damaged file costs no more than that."""

import logging
import os
from pathlib import Path
from typing import TypeVar

from lfgcl_env.edge.schema import read_text
from lfgcl_env.edge.sealed import Sealed, parse_sealed

_log = logging.getLogger(__name__)

_Stored = TypeVar("_Stored", bound=Sealed)


def read_stored(schema: type[_Stored], path: Path, how: str) -> _Stored | None:
    """Read a sealed file.

    Args:
        schema: of its content.
        path: of the file.
        how: to find the result again, in the warning: "measure again".

    Returns:
        None if there is no such file, or if it is damaged, with a warning.
    """
    if not path.exists():
        return None
    try:
        return parse_sealed(schema, read_text(path), f"{path} is damaged")
    except ValueError as error:
        _log.warning("%s: %s", error, how)
        return None


def set_aside_damaged(schema: type[Sealed], path: Path) -> None:
    """Rename a damaged file to ``NAME.damaged``, before a new one is written in its place.

    Raises:
        OSError: if it cannot be renamed.
    """
    if not path.exists():
        return
    try:
        parse_sealed(schema, read_text(path), f"{path} is damaged")
    except ValueError as error:
        aside = path.with_name(f"{path.name}.damaged")
        os.replace(path, aside)
        _log.warning("%s: it is kept as %s", error, aside.name)
