"""What other commands found of a run's networks after the search, in the run's own records.

Each keeps a file of its own: ``measured.json``, ``recoveries.json``, ``exports.json``. What they
hold of the network of a run on one budget stands in ``best.json`` and ``report.txt`` as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfgcl_env.edge.files import write_text
from lfgcl_env.edge.schema import read_text
from lfgcl_env.edge.sealed import sealed
from lfgcl_env.pruning import read_structure
from lfgcl_env.runs.best import BEST, read_best
from lfgcl_env.runs.exports import StoredExport, add_to_exports, format_exports, read_exports
from lfgcl_env.runs.measured import Measured, format_section, read_measured, write_measured
from lfgcl_env.runs.recoveries import (
    StoredRecovery,
    add_to_recoveries,
    format_recoveries,
    read_recoveries,
)
from lfgcl_env.runs.run_folder import PRUNED

_REPORT = "report.txt"
_LINE = "\nafter the search\n\n"


@dataclass(frozen=True)
class Findings:
    """What is known of networks besides their search.

    Attributes:
        measured: times, sizes and memory.
        recoveries: of these networks, and of what came out of them.
        exports: of all these.
    """

    measured: Measured | None
    recoveries: Sequence[StoredRecovery]
    exports: Sequence[StoredExport]


def read_findings(folder: Path, tensors: Sequence[str]) -> Findings:
    """Read what is known of a run's networks with these checksums."""
    recoveries = read_recoveries(folder, tensors)
    known = [*tensors, *(one.tensors for one in recoveries)]
    return Findings(read_measured(folder, tensors), recoveries, read_exports(folder, known))


def add_measured(folder: Path, measured: Measured) -> None:
    """Write what was measured of a run's networks.

    Args:
        folder: the run folder. One of a run on a range of budgets gets ``measured.json`` alone.
        measured: of its networks.

    Raises:
        ValueError: if ``best.json`` is damaged, or the folder holds a link out of it.
        OSError: if a file cannot be written.
    """
    write_measured(folder, measured)
    show_findings(folder)


def add_recovery(folder: Path, fields: Mapping[str, Any]) -> None:
    """Write what came of a recovery, likewise; ``fields`` are those of ``StoredRecovery``."""
    add_to_recoveries(folder, fields)
    show_findings(folder)


def add_export(folder: Path, fields: Mapping[str, Any]) -> None:
    """Write what was exported, likewise; ``fields`` are those of ``StoredExport``."""
    add_to_exports(folder, fields)
    show_findings(folder)


def show_findings(folder: Path) -> None:
    """Write what is known of a run's network into ``best.json`` and ``report.txt``.

    A resumed run may end with the same network, of which it still holds.

    Raises:
        ValueError: if ``best.json`` is damaged.
        OSError: if a file cannot be written.
    """
    if not ((folder / BEST).exists() and (folder / PRUNED).exists()):
        return
    found = read_findings(folder, [read_structure(folder / PRUNED)["tensors"]])
    facts = read_best(folder).model_dump(exclude={"checksum"}, exclude_unset=True)
    measured = found.measured
    facts["measured"] = measured and measured.model_dump(exclude={"checksum"})
    facts["recoveries"] = [one.model_dump() for one in found.recoveries]
    facts["exports"] = [one.model_dump() for one in found.exports]
    write_text(folder / BEST, f"{sealed(facts, indent=2)}\n")
    page = folder / _REPORT
    if page.exists():
        above = read_text(page).partition(_LINE)[0]
        parts = (
            format_section(measured) if measured else "",
            format_recoveries(found.recoveries),
            format_exports(found.exports),
        )
        below = "\n".join(filter(None, parts))
        write_text(page, f"{above}{_LINE}{below}" if below else above)
