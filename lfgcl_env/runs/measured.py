"""``measured.json``: what ``lfgcl measure`` found of a run's networks, and how it is written."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt, Le, MaxLen, MinLen
from pydantic import JsonValue
from tabulate import tabulate

from lfgcl_env.edge.bounds import (
    LONGEST_LIST,
    Cost,
    Count,
    Milliseconds,
    Name,
    TensorsChecksum,
    Text,
    Threads,
)
from lfgcl_env.edge.files import check_links, write_text
from lfgcl_env.edge.schema import Schema
from lfgcl_env.edge.sealed import Sealed, parse_sealed, sealed
from lfgcl_env.latency.measuring import Measurement
from lfgcl_env.runs.stored_result import read_stored

MEASURED = "measured.json"
BASELINE = "baseline"

_HEAD = "measured by `lfgcl measure`"
_Positive = Annotated[float, Gt(0), Le(1e12)]


class StoredTiming(Schema):
    """A :class:`~lfgcl_env.latency.timing.Timing` in a file."""

    median: Milliseconds
    low: Milliseconds
    high: Milliseconds
    rounds: Count


class StoredMeasurement(Schema):
    """A :class:`~lfgcl_env.latency.measuring.Measurement` in a file."""

    network: Name
    runtime: Name
    batch: Count
    threads: Threads
    time: StoredTiming
    speedup: _Positive
    images_per_second: _Positive
    file_bytes: Cost
    peak_bytes: Cost | None


class StoredSize(Schema):
    """What does not depend on a runtime."""

    macs: Cost
    params: Cost


class Measured(Sealed):
    """``measured.json``.

    Attributes:
        title: of the baseline.
        tensors: checksum of every pruned network, by its name.
        networks: sizes by name, the baseline's first.
        measurements: by runtime and batch.
        memory: how peak memory is measured, by runtime.
        provenance: where and how it was measured.
    """

    title: Text
    tensors: dict[Name, TensorsChecksum]
    networks: dict[Name, StoredSize]
    measurements: Annotated[list[StoredMeasurement], MinLen(1), MaxLen(LONGEST_LIST)]
    memory: dict[Name, Text]
    provenance: dict[Name, JsonValue]


def collect(
    title: str,
    tensors: Mapping[str, str],
    networks: Mapping[str, Mapping[str, int]],
    measurements: Sequence[Measurement],
    memory: Mapping[str, str],
    provenance: Mapping[str, Any],
) -> Measured:
    """Put together what was measured, see :class:`Measured`.

    Raises:
        ValueError: if it cannot be recorded.
    """
    fields = {
        "title": title,
        "tensors": dict(tensors),
        "networks": {name: dict(size) for name, size in networks.items()},
        "measurements": [asdict(one) for one in measurements],
        "memory": dict(memory),
        "provenance": dict(provenance),
    }
    return parse_sealed(Measured, sealed(fields), "what was measured cannot be recorded")


def write_measured(folder: Path, measured: Measured) -> Path:
    """Write ``measured.json``.

    Raises:
        ValueError: if the folder holds a link out of it.
        OSError: if it cannot be written.
    """
    check_links(folder)
    path = folder / MEASURED
    write_text(path, as_text(measured) + "\n")
    return path


def as_text(measured: Measured) -> str:
    """Return the file's content."""
    return sealed(measured.model_dump(exclude={"checksum"}), indent=2)


def read_measured(folder: Path, tensors: Sequence[str]) -> Measured | None:
    """Read what was measured of the networks with these checksums.

    Returns:
        None if nothing was, if it was of other networks, or if the file is damaged, with a warning.
    """
    found = read_stored(Measured, folder / MEASURED, "measure again")
    return found if found and list(found.tensors.values()) == list(tensors) else None


def format_section(measured: Measured) -> str:
    """Write a section of a page of text."""
    return f"{_HEAD}: {describe(measured)}\n\n{format_measured(measured)}"


def describe(measured: Measured) -> str:
    """Name the baseline, the machine and the threads in one line."""
    where = measured.provenance
    machine = [str(where[name]) for name in ("processor", "device") if where.get(name)]
    threads = sorted({one.threads for one in measured.measurements})
    counted = " and ".join(map(str, threads))
    plural = "" if threads == [1] else "s"
    return ", ".join([measured.title, *dict.fromkeys(machine), f"{counted} thread{plural}"])


def format_measured(measured: Measured) -> str:
    """Write a table: a column for every network, and the runtimes one below the other."""
    names = list(measured.networks)
    sizes = measured.networks.values()
    rows = [
        ["", *names],
        ["MACs", *(f"{size.macs:,}" for size in sizes)],
        ["params", *(f"{size.params:,}" for size in sizes)],
    ]
    found: dict[tuple[str, int, int], dict[str, StoredMeasurement]] = {}
    for one in measured.measurements:
        found.setdefault((one.runtime, one.batch, one.threads), {})[one.network] = one
    last = ""
    for (runtime, batch, _), by_name in found.items():
        line = [by_name[name] for name in names]
        if runtime != last:
            rows.append([f"{runtime}, file [MB]", *(f"{m.file_bytes / 1e6:.2f}" for m in line)])
            last = runtime
        faster = [f"{m.speedup:.2f}x" for m in line[1:]]
        rows += [
            [f"  batch {batch}, median [ms]", *(f"{m.time.median:.2f}" for m in line)],
            ["    quartiles [ms]", *(f"{m.time.low:.2f}-{m.time.high:.2f}" for m in line)],
            ["    faster", "", *faster],
            ["    images/s", *(f"{m.images_per_second:,.0f}" for m in line)],
            ["    peak memory [MB]", *(_megabytes(m.peak_bytes) for m in line)],
        ]
    align = ["left", *["right"] * len(names)]
    text = tabulate(
        rows, tablefmt="plain", disable_numparse=True, colalign=align, preserve_whitespace=True
    )
    notes = [f"peak memory in {name}: {how}" for name, how in measured.memory.items()]
    return "\n".join([line.rstrip() for line in [*text.split("\n"), "", *notes]]) + "\n"


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.2f}"
