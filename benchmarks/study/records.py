"""Records of a study as JSON Lines: one line for every measured run.

A line is an object of three parts: ``run`` (what was asked, all of which identifies the run),
``result`` (what was measured) and ``provenance`` (code, versions and machine).
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Fields = dict[str, Any]
"""JSON values by name."""

VERSION = "agent_version"
"""The field of a run that holds the version of its agent."""

_PARTS = ("run", "result", "provenance")

_log = logging.getLogger(__name__)


def identity(run: Mapping[str, Any]) -> str:
    """Return what identifies a run: all its fields, in one canonical text.

    >>> identity({"seed": 0, "agent": "random"}) == identity({"agent": "random", "seed": 0})
    True
    """
    return json.dumps(run, sort_keys=True)


def read(path: Path) -> list[Fields]:
    """Read all lines of a file; a missing file has none.

    Raises:
        ValueError: if a line is damaged; a last line that was cut off is skipped instead.
    """
    if not path.exists():
        return []
    *whole, rest = path.read_text(encoding="utf-8").split("\n")
    if rest:
        _log.warning("%s ends in half a line, which is measured again", path)
    return [_parsed(line, f"{path}, line {number}") for number, line in enumerate(whole, 1)]


def append(path: Path, run: Fields, result: Fields, provenance: Fields) -> None:
    """Add a line, in place of half a line that an interrupted process left at the end.

    Raises:
        ValueError: if a name is both a run's and its result's field, or a value is not JSON.
    """
    if both := run.keys() & result.keys():
        raise ValueError(f"fields of the run may not be fields of its result: {sorted(both)}")
    parts = zip(_PARTS, (run, result, provenance), strict=True)
    line = json.dumps(dict(parts), allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
        file.write(line.encode())


def newest(path: Path) -> list[Fields]:
    """Return the newest record of every run, whichever version of its agent made it.

    Returns:
        One dictionary per run, with the fields of the run and of its result, in the order in which
        the runs were first measured.
    """
    return [line["run"] | line["result"] for line in _newest(path)]


def origins(*paths: Path) -> list[Fields]:
    """Return what made the newest records of files: each command, commit and machine once.

    Returns:
        Every provenance with the number of its ``records``, and the first of the times at which
        they were ``started``. One of old records may be empty but for their number.
    """
    found: dict[str, Fields] = {}
    for line in (line for path in paths for line in _newest(path)):
        made = {name: value for name, value in line["provenance"].items() if name != "started"}
        mine = found.setdefault(identity(made), {"records": 0, **line["provenance"]})
        mine["records"] += 1
        if "started" in mine:
            mine["started"] = min(mine["started"], line["provenance"]["started"])
    return list(found.values())


def _newest(path: Path) -> list[Fields]:
    found: dict[str, Fields] = {}
    for line in read(path):
        versionless = {name: value for name, value in line["run"].items() if name != VERSION}
        found[identity(versionless)] = line
    return list(found.values())


def _parsed(line: str, where: str) -> Fields:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is damaged ({error})") from error
    if not isinstance(found, dict) or any(not isinstance(found.get(p), dict) for p in _PARTS):
        raise ValueError(f"{where} is damaged: it needs {', '.join(_PARTS)}")
    return found
