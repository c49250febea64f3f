"""Results of a run that can be found again: a damaged file costs no more than that."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lfgcl_env.edge.files import check_links, write_text
from lfgcl_env.edge.schema import read_text
from lfgcl_env.edge.sealed import Sealed, parse_sealed, sealed

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
    try:
        return _parsed(schema, path)
    except ValueError as error:
        _log.warning("%s: %s", error, how)
        return None


def add_to_stored(
    schema: type[Sealed], path: Path, name: str, fields: Mapping[str, Any], what: str
) -> None:
    """Add an entry to a sealed file's list, in place of an earlier one of the same ``file``.

    A damaged file is renamed to ``NAME.damaged``, with a warning.

    Args:
        schema: of the file.
        path: of it, in a run folder.
        name: of the list.
        fields: of the entry.
        what: it is, for the message.

    Raises:
        ValueError: if the entry cannot be recorded, or the folder holds a link out of it.
        OSError: if a file cannot be written.
    """
    check_links(path.parent)
    known: Sequence[Any] = ()
    try:
        found = _parsed(schema, path)
        known = getattr(found, name) if found else ()
    except ValueError as error:
        aside = path.with_name(f"{path.name}.damaged")
        os.replace(path, aside)
        _log.warning("%s: it is kept as %s", error, aside.name)
    others = [one.model_dump() for one in known if one.file != fields["file"]]
    text = sealed({name: [*others, dict(fields)]}, indent=2)
    parse_sealed(schema, text, f"{what} cannot be recorded")
    write_text(path, f"{text}\n")


def _parsed(schema: type[_Stored], path: Path) -> _Stored | None:
    """Parse a file, if there is one.

    Raises:
        ValueError: if it is damaged.
    """
    return parse_sealed(schema, read_text(path), f"{path} is damaged") if path.exists() else None
