"""The files of a sweep: a network and a report for every budget, a table, and a picture."""

import csv
import io
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lfgcl_env.edge.files import remove_file, write_text
from lfgcl_env.edge.sealed import parse_sealed, sealed
from lfgcl_env.networks.copying import copy_network
from lfgcl_env.pruning import Evaluation, PruningProblem, load_pruned
from lfgcl_env.pruning.budget.tolerance import label
from lfgcl_env.pruning.evaluation import SAME_SIMILARITY
from lfgcl_env.runs import report
from lfgcl_env.runs.delivered_times import DeliveredTimes
from lfgcl_env.search.budget_sweep import Point
from lfgcl_env.search.shortlist import Shortlisted
from lfgcl_env.search.stored_sweep import SWEEP, StoredSweep, read_sweep
from lfgcl_env.search.sweep_picture import draw

_logger = logging.getLogger(__name__)

TABLE = "sweep.csv"
ACCURACY = "sweep_accuracy.csv"


class SweepFiles:
    """The sweep in a run folder; every finished point is on disk before the next is begun.

    ``sweep/pruned_0.30.safetensors`` and ``sweep/report_0.30.txt`` belong to a budget of 0.3,
    ``sweep.json`` holds all that is known of the points, ``sweep.csv`` most of it as a table, and
    ``sweep.png`` shows it.

    Args:
        run: the run folder.
        problem: what was searched.
    """

    def __init__(self, run: Path, problem: PruningProblem) -> None:
        self._run = run
        self._problem = problem
        self._facts: dict[str, Any] = {}
        self._points: list[Point] = []

    def begin(self, facts: Mapping[str, Any]) -> list[Point]:
        """Return the points that were finished before, after removing those of another search.

        A point is kept if its network scores again what its file says.

        Args:
            facts: JSON-able, what decides the points: the search, ``budgets``, ...

        Raises:
            ValueError: if ``sweep.json`` or a network is damaged or was edited.
        """
        self._facts = json.loads(json.dumps(facts))
        known = read_sweep(self._run) or {}
        described = known.pop("points", [])
        if known == self._facts:
            files = {network_file(point["budget"]): point for point in described}
            there = [point for file, point in files.items() if (self._run / file).exists()]
            self._points = [p for p in map(self._restore, there) if self._holds(p)]
        else:
            self._remove()
        return list(self._points)

    def add(self, point: Point) -> None:
        """Write a point's network and report, then the table with it.

        Raises:
            OSError: if a file cannot be written.
        """
        problem, keep = self._problem, point.searched.keep
        repaired = asdict(point.repaired) if point.repaired else None
        (self._run / "sweep").mkdir(exist_ok=True)
        path = self._run / network_file(point.budget)
        problem.save(path, keep, point.network, point.budget, repaired=repaired)
        title = f"budget {label(point.budget)}: "
        title += report.format_headline(problem, point.searched, point.repaired, point.times)
        table = report.compare_layers(problem.network, keep, point.network)
        page = report.format_page(problem, table, title, point.delivery)
        write_text(path.with_name(f"report_{label(point.budget)}.txt"), page)
        self._points = sorted([*self._points, point], key=lambda p: p.budget)
        described = [self._describe(point) for point in self._points]
        write_text(self._run / TABLE, _csv(_rows(self._points)))
        sweep = sealed({**self._facts, "points": described}, indent=2)
        parse_sealed(StoredSweep, sweep, "the sweep cannot be recorded")
        write_text(self._run / SWEEP, f"{sweep}\n")

    def draw(self, visited: Iterable[Evaluation]) -> None:
        """Draw similarity against MACs.

        Args:
            visited: what the search scored, shown as dots.

        Raises:
            OSError: if the file cannot be written.
        """
        before = [(p.searched.macs / 1e6, p.searched.similarity) for p in self._points]
        after = [(p.repaired.macs / 1e6, p.repaired.similarity) for p in self._points if p.repaired]
        lines = {"before repair": before} | ({"after repair": after} if after else {})
        dots = [(e.macs / 1e6, e.similarity) for e in visited]
        path = self._run / "sweep.png"
        if draw(lines, path, f"{self._problem.similarity} similarity", dots) is None:
            _logger.info("no sweep.png: run `pip install lfgcl-env[plots]` to get one")

    def _restore(self, described: Mapping[str, Any]) -> Point:
        """Make a point from ``sweep.json`` and its network's file."""
        known = dict(described)
        del known["file"], known["predicted_ms"]
        times = DeliveredTimes.read(known.pop("measured_ms"))
        path = self._run / network_file(known["budget"])
        listed = [
            Shortlisted(
                one["origin"],
                one["reward"],
                _evaluation(one["searched"]),
                one["repaired"] and _evaluation(one["repaired"]),
                one["score"],
                one["delivery"],
            )
            for one in known.pop("shortlist")
        ]
        evaluations = {
            name: known[name] and _evaluation(known[name])
            for name in ("predicted", "searched", "repaired")
        }
        architecture = copy_network(self._problem.baseline.network)
        network = load_pruned(path, architecture)
        return Point(**known | evaluations, shortlist=tuple(listed), network=network, times=times)

    def _describe(self, point: Point) -> dict[str, Any]:
        # Without its network, which has a file of its own and would be copied by asdict.
        described = asdict(replace(point, network=None))  # type: ignore[arg-type]
        del described["network"], described["times"]
        return {
            **described,
            "file": network_file(point.budget),
            "predicted_ms": report.predict_latency(self._problem, point.searched),
            "measured_ms": point.times and point.times.stored(),
        }

    def _holds(self, point: Point) -> bool:
        """Whether a point's network scores what is recorded of it."""
        problem, kept = self._problem, point.repaired or point.searched
        similarity = problem.score_network(point.network, kept.keep)
        return abs(similarity - kept.similarity) <= SAME_SIMILARITY

    def _remove(self) -> None:
        """Remove what belongs to another search."""
        for name in (SWEEP, TABLE, ACCURACY, "sweep.png", "sweep_accuracy.png"):
            remove_file(self._run / name)
        for pattern in ("pruned_*.safetensors", "report_*.txt"):
            for path in (self._run / "sweep").glob(pattern):
                remove_file(path)


def network_file(budget: float) -> str:
    """Where a run folder has the network of a budget.

    >>> network_file(0.3)
    'sweep/pruned_0.30.safetensors'
    """
    return f"sweep/pruned_{label(budget)}.safetensors"


def write_accuracy(run: Path, rows: Sequence[Mapping[str, Any]], data: str) -> list[Path]:
    """Write the accuracy of a sweep as a table and, if matplotlib is there, as a picture.

    Args:
        run: the run folder.
        rows: the baseline's first, then one for every budget, with ``macs`` and ``top1`` [%].
        data: what the accuracy was measured on.

    Returns:
        What was written.

    Raises:
        OSError: if a file cannot be written.
    """
    table = run / ACCURACY
    write_text(table, _csv(rows))
    baseline, *points = [(row["macs"] / 1e6, row["top1"]) for row in rows]
    lines = {"pruned": points, "baseline": [baseline]}
    picture = draw(lines, run / "sweep_accuracy.png", f"top-1 [%] on {data}")
    return [table] if picture is None else [table, picture]


def _evaluation(described: Mapping[str, Any]) -> Evaluation:
    return Evaluation(**{**described, "keep": tuple(described["keep"])})


def _rows(points: Sequence[Point]) -> list[dict[str, Any]]:
    return [
        {
            "budget": point.budget,
            "reward": point.reward,
            "macs": point.searched.macs,
            "macs_ratio": point.searched.macs_ratio,
            "params": point.searched.params,
            "params_ratio": point.searched.params_ratio,
            "similarity": point.searched.similarity,
            "repaired_similarity": point.repaired.similarity if point.repaired else "",
            "predicted_similarity": point.predicted.similarity,
            "origin": point.origin,
            "delivery": point.delivery,
            "keep": " ".join(map(str, point.searched.keep)),
            "file": network_file(point.budget),
        }
        for point in points
    ]


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
