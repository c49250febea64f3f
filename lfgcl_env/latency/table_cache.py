"""Tables of this machine on disk, so that every network is measured once."""

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from lfgcl_env.edge.files import write_beside
from lfgcl_env.latency.table import Table, digest, read_table, write_table

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return the folder of tables: ``LFGCL_LATENCY``, without it ``~/.cache/lfgcl/latency``."""
    return Path(os.path.expanduser(os.environ.get("LFGCL_LATENCY") or "~/.cache/lfgcl/latency"))


def cached(belongs_to: Mapping[str, str], measure: Callable[[], Table]) -> Table:
    """Return the table of this machine, or measure and keep it.

    Args:
        belongs_to: what its times hold for.
        measure: makes it.

    A damaged file is measured anew, with a warning. So is one of a folder that cannot be written.
    """
    path = cache_folder() / f"{_name(belongs_to)}.json"
    try:
        table = read_table(path)
        if table.belongs_to == dict(belongs_to):
            return table
        _log.warning("%s belongs to something else: it is measured anew", path)
    except FileNotFoundError:
        pass
    except (ValueError, OSError) as error:
        _log.warning("%s: it is measured anew", error)
    table = measure()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, table)
        # Under its checksum too, by which a run finds it when this machine was measured again.
        write_table(path.with_name(f"{table.checksum}.json"), table)
    except OSError as error:
        _log.warning("the latency table is not kept: %s", error)
    return table


def find_table(name: str) -> Table:
    """Return a table by its path, or by its checksum if it is in the cache.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, or its checksum another.
    """
    path = Path(name)
    if path.is_file():
        return read_table(path)
    kept = cache_folder() / f"{name}.json"
    if not (name.isalnum() and kept.is_file()):
        raise FileNotFoundError(
            f"there is no latency table {name!r}: give the path of one, such as latency.json in "
            f"the run folder that was made with it, or its checksum if {cache_folder()} has it"
        )
    table = read_table(kept)
    if table.checksum != name:
        raise ValueError(f"{kept} holds another table, {table.checksum}")
    return table


def adopt(path: Path) -> str:
    """Put a table that came with a run into the cache, and return its checksum.

    Raises:
        ValueError: if it is damaged.
        OSError: if it cannot be read or written.
    """
    table = read_table(path)
    kept = cache_folder() / f"{table.checksum}.json"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_beside(kept, lambda partial: shutil.copyfile(path, partial))
    return table.checksum


def _name(belongs_to: Mapping[str, str]) -> str:
    return "machine-" + digest(repr(sorted(belongs_to.items())))
