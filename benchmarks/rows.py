"""The comparison's records: JSON Lines, one for every run, and statistics over their seeds."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Row = dict[str, Any]

TESTED = (100, 400)
"""After how many evaluations, and in the end, the best strategy is repaired and tested."""

SIMILARITY = "discounted_mse"
"""What contestants without labels are rewarded with, unless a line says otherwise."""

BEFORE: Row = {
    "environment": "LFGCL",
    "kind": "agent",
    "weights": "published",
    "data": "CIFAR10",
    "criterion": "obs",
    "similarity": "mse",
    "labelled": None,
}
"""What lines hold that were written before there was a choice."""

IDENTITY = (
    "environment", "agent", "budget", "seed", "images", "weights", "data", "similarity", "labelled",
)  # fmt: skip
"""What tells one run from another, besides its evaluations."""


AMC_AGENTS = ("amc", "amc_executed")
"""Those at home in the environment ``AMC``; all others are in ``LFGCL``."""


def results_file(folder: Path, network: str) -> Path:
    """Where the runs on a network are kept."""
    return folder / f"compare_{network.replace(':', '_').replace('/', '_')}.jsonl"


def lines(path: Path) -> Iterator[Row]:
    """The records of a file of JSON Lines, as they are; none if there is no file."""
    if path.exists():
        yield from (json.loads(line) for line in path.read_text().splitlines())


def read_rows(path: Path) -> list[Row]:
    """The runs that are there already; a run that is there twice counts once, as it was last."""
    rows = [BEFORE | line for line in lines(path)]
    return list({(*identity(row), _asked(row)): row for row in rows}.values())


def identity(row: Row) -> tuple[Any, ...]:
    """What tells a run from another."""
    return tuple(row[name] for name in IDENTITY)


def is_done(run: Row, evaluations: int, rows: Sequence[Row]) -> bool:
    """Whether a run is there that says what so many evaluations are worth."""
    same = [row for row in rows if identity(row) == identity(run) and _asked(row) >= evaluations]
    return any(str(min(evaluations, TESTED[-1])) in row["tested"] for row in same)


def _asked(row: Row) -> int:
    """Evaluations that a run was to have; some need fewer."""
    return max(int(count) for count in row["best"])


def label(row: Row) -> str:
    """A contestant's name, with environment and similarity where they are not the usual ones."""
    usual = "AMC" if row["agent"] in AMC_AGENTS else "LFGCL"
    unusual = [row["environment"]] if row["environment"] != usual else []
    if row["similarity"] != SIMILARITY:
        unusual.append(f"{row['similarity']} reward")
    return f"{row['agent']} ({', '.join(unusual)})" if unusual else str(row["agent"])


def seconds(row: Row, evaluations: int) -> float:
    """What a run took for so many of its evaluations [s]."""
    return float(row["seconds"] * min(row["evaluations"], evaluations) / row["evaluations"])


def interval(values: Sequence[float]) -> dict[str, float]:
    """The interquartile mean, and its 95 % percentile-bootstrap interval."""
    sample = np.array(values)
    found = {"iqm": round(float(_iqm(sample)), 5)}
    if len(sample) > 1 and np.ptp(sample) > 0:
        drawn = stats.bootstrap(
            (sample,), _iqm, method="percentile", n_resamples=2000, rng=np.random.default_rng(0)
        ).confidence_interval
        found |= {"low": round(float(drawn.low), 5), "high": round(float(drawn.high), 5)}
    return found


def _iqm(values: NDArray[np.float64], axis: int = -1) -> Any:
    return stats.trim_mean(values, 0.25, axis=axis)
