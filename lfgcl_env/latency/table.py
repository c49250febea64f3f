"""Tables of times: measured once, and written and read as files."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le, MaxLen, MinLen
from numpy.typing import NDArray

from lfgcl_env.edge.bounds import LONGEST_LIST, Count, Name, Text
from lfgcl_env.edge.files import write_text
from lfgcl_env.edge.progress import progress as shown_progress
from lfgcl_env.edge.schema import Schema, read_text
from lfgcl_env.edge.sealed import Sealed, parse_sealed, sealed
from lfgcl_env.latency.operations import Signature
from lfgcl_env.latency.timing import Call, Clock, take_turns
from lfgcl_env.latency.units import Bench

FORMAT = 1
QUANTILE = 0.25
"""Of the times of a call: the lower quartile, what it takes where little else disturbs it."""

_CHUNK = 100  # operations that take turns; more would fill the kernels' caches
_CHUNK_BYTES = 2**29  # of their tensors
_Nanoseconds = Annotated[float, Ge(-1e12), Le(1e15)]
_Key = Annotated[str, MinLen(16), MaxLen(16)]


class Entry(Schema):
    """The times of one operation.

    Attributes:
        operation: its name.
        knots: along every axis, the counts that were measured.
        times: at all their combinations, the last axis fastest [ns].
    """

    operation: Name
    knots: Annotated[list[Annotated[list[Count], MinLen(1), MaxLen(100)]], MinLen(1), MaxLen(3)]
    times: Annotated[list[_Nanoseconds], MinLen(1), MaxLen(LONGEST_LIST)]

    @property
    def grid(self) -> NDArray[np.float64]:
        """The times, an axis for every axis of the operation.

        Raises:
            ValueError: if there are more or fewer.
        """
        return np.array(self.times).reshape([len(axis) for axis in self.knots])


class Table(Sealed):
    """What was measured of a network's operations, and of whole networks.

    Attributes:
        format: of the file.
        belongs_to: runtime, batch, threads, machine, versions and operations.
        entries: by the operation's key, see :func:`key_of`.
        networks: times of whole networks, see
            :func:`~lfgcl_env.latency.prediction.anchors` [ns].
    """

    format: Literal[1]
    belongs_to: dict[Name, Text]
    entries: Annotated[dict[_Key, Entry], MaxLen(LONGEST_LIST)]
    networks: Annotated[list[Annotated[float, Ge(1), Le(1e15)]], MinLen(1), MaxLen(LONGEST_LIST)]


Knots = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Wanted:
    """An operation to be measured, and where.

    Attributes:
        signature: of the operation.
        knots: along every axis.
    """

    signature: Signature
    knots: Knots


def key_of(signature: Signature, knots: Knots) -> str:
    """Return what an operation and its knots are found by in a table.

    One operation of a network may have several entries, where limits allow different counts.
    """
    return digest(f"{signature.text} {knots}")


def digest(text: str) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def measure_table(
    wanted: Sequence[Wanted],
    networks: Sequence[Call],
    bench: Bench,
    belongs_to: Mapping[str, str],
    *,
    threads: int = 1,
    seconds: float = 30.0,
    idle: Call = lambda: None,
    clock: Clock = time.perf_counter,
    until: Clock = time.perf_counter,
    progress: bool = False,
) -> Table:
    """Measure operations at all their knots, and whole networks.

    Args:
        wanted: operations and knots.
        networks: run whole networks, the baseline first.
        bench: makes what is timed.
        belongs_to: what the times hold for.
        threads: that compute.
        seconds: for all operations together; half as long for the networks.
        idle: waits until what was begun has ended.
        clock: returns seconds.
        until: the clock by which the time is up.
        progress: whether to show a bar on standard error.
    """
    points = [(one, at) for one in wanted for at in product(*one.knots)]
    times: dict[tuple[str, tuple[int, ...]], float] = {}
    done = 0
    turn: dict[str, Any] = {"idle": idle, "clock": clock, "until": until}
    with shown_progress("latency table", "point", default=progress) as advance:
        for chunk in _chunks(points):
            units = [bench(one.signature, at, threads) for one, at in chunk]
            calls = [call for unit in units for call, _ in unit]
            share = seconds * len(chunk) / len(points)
            took = iter(take_turns(calls, share, rounds=(5, 500), again=2, **turn))
            for (one, at), unit in zip(chunk, units, strict=True):
                total = sum(weight * _typical(next(took)) for _, weight in unit)
                times[key_of(one.signature, one.knots), at] = total
            done += len(chunk)
            advance(done, len(points))
    whole = take_turns(networks, seconds / 2, rounds=(9, 300), **turn)
    entries = {
        key_of(one.signature, one.knots): {
            "operation": one.signature.name,
            "knots": [list(axis) for axis in one.knots],
            "times": [times[key_of(one.signature, one.knots), at] for at in product(*one.knots)],
        }
        for one in wanted
    }
    fields = {
        "format": FORMAT,
        "belongs_to": dict(belongs_to),
        "entries": entries,
        "networks": [max(_typical(times), 1.0) for times in whole],
    }
    return parse_sealed(Table, sealed(fields), "what was measured cannot be recorded")


Point = tuple[Wanted, tuple[int, ...]]


def _chunks(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Split what is measured, so that what takes turns fits the memory."""
    chunk: list[Point] = []
    taken = 0
    for one, at in points:
        size = one.signature.bytes(at)
        if chunk and (len(chunk) == _CHUNK or taken + size > _CHUNK_BYTES):
            yield chunk
            chunk, taken = [], 0
        chunk.append((one, at))
        taken += size
    if chunk:
        yield chunk


def _typical(seconds: Sequence[float]) -> float:
    return round(float(np.quantile(seconds, QUANTILE)) * 1e9, 1)


def write_table(path: Path, table: Table) -> None:
    """Write a table.

    Raises:
        OSError: if it cannot be written.
    """
    write_text(path, sealed(table.model_dump(exclude={"checksum"})) + "\n")


def read_table(path: Path) -> Table:
    """Read a table.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged or was edited.
    """
    table = parse_sealed(Table, read_text(path), f"{path} is no latency table, or is damaged")
    for entry in table.entries.values():
        if len(entry.times) != np.prod([len(axis) for axis in entry.knots]):
            raise ValueError(f"{path} is no latency table: {entry.operation} lacks times")
    return table
