"""Plots of a comparison: accuracy against what it costs, learning curves, and what is kept."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import checkout  # noqa: F401 - baselines are found by it
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from rows import Row, interval, label, results_file

from baselines.quoted import QUOTED
from lfgcl_env.pruning import PruningProblem

POINTS_BELOW = 15
"""Top-1 so far below the best is cut off: some ways to prune leave nothing."""


def draw(
    network: str, rows: list[Row], problem: PruningProblem, evaluations: int, folder: Path
) -> Iterator[Path]:
    """Draw all plots.

    Args:
        network: its name.
        rows: the runs.
        problem: the network's groups and costs.
        evaluations: of which the accuracy is shown.
        folder: where the pictures go.

    Yields:
        The files written.
    """
    stem = results_file(folder, network).with_suffix("")
    plots: dict[str, Callable[[], Figure]] = {
        "macs": lambda: against_macs(network, rows, problem, str(evaluations)),
        "evaluations": lambda: against_evaluations(network, rows),
        "seconds": lambda: against_seconds(network, rows, evaluations),
        "channels": lambda: channels(network, rows, problem, str(evaluations)),
        "similarity": lambda: curves(network, rows),
    }
    for name, plot in plots.items():
        path = stem.with_name(f"{stem.name}_{name}.png")
        plot().savefig(path)
        yield path


def against_macs(network: str, rows: list[Row], problem: PruningProblem, last: str) -> Figure:
    """Top-1 against the fraction of MACs kept; quoted results as crosses."""
    figure, (axes,) = _figure(1)
    for name, mine in _by(rows):
        points = []
        for budget in sorted({r["budget"] for r in mine}):
            found = [r["tested"][last] for r in mine if r["budget"] == budget]
            macs = np.mean([problem.cost(f["keep"]).macs for f in found])
            points.append((macs / problem.baseline_cost.macs, [f["top1"] for f in found]))
        _line(axes, rows, name, [x for x, _ in points], [y for _, y in points])
    for quoted in (q for q in QUOTED if q.network == network):
        axes.plot(quoted.macs_ratio, quoted.top1, "x", color="grey")
        axes.annotate(
            f"{quoted.method}, quoted", (quoted.macs_ratio, quoted.top1), fontsize=6, color="grey"
        )
    _finish(axes, rows, last, "fraction of MACs kept", f"{network}, {last} evaluations")
    return _with_legend(figure)


def against_evaluations(network: str, rows: list[Row]) -> Figure:
    """Top-1 of the best strategy after so many evaluations, for every budget."""

    def points(mine: list[Row]) -> list[tuple[float, list[float]]]:
        if all(r["evaluations"] == 1 for r in mine):
            counts = list(mine[0]["tested"])[-1:]
        else:
            counts = [c for c in mine[0]["tested"] if all(c in r["tested"] for r in mine)]
        return [
            (
                float(np.median([min(int(c), r["evaluations"]) for r in mine])),
                [r["tested"][c]["top1"] for r in mine],
            )
            for c in counts
        ]

    return _panels(network, rows, points, "evaluations")


def against_seconds(network: str, rows: list[Row], evaluations: int) -> Figure:
    """Top-1 against the time of the whole search, for every budget."""

    def points(mine: list[Row]) -> list[tuple[float, list[float]]]:
        each = [r["seconds"] / r["evaluations"] for r in mine]
        took = [e * min(r["evaluations"], evaluations) for e, r in zip(each, mine, strict=True)]
        top1 = [r["tested"][str(evaluations)]["top1"] for r in mine]
        return [(max(float(np.median(took)), 0.05), top1)]

    return _panels(network, rows, points, "seconds of search")


def curves(network: str, rows: list[Row]) -> Figure:
    """Best similarity against evaluations, for every budget."""
    budgets = sorted({r["budget"] for r in rows}, reverse=True)
    figure, panels = _figure(len(budgets))
    for axes, budget in zip(panels, budgets, strict=True):
        here = [r for r in rows if r["budget"] == budget]
        for name, mine in _by(here):
            counts = [c for c in mine[0]["best"] if all(c in r["best"] for r in mine)]
            values = [[r["best"][c] for r in mine] for c in counts]
            _line(axes, rows, name, [int(c) for c in counts], values)
        best = max(max(r["best"].values()) for r in here)
        axes.set(xscale="log", xlabel="evaluations", ylabel="similarity of the best so far")
        axes.set_ylim(best - 0.3, best + 0.01)
        axes.set_title(f"{network}, {budget:.0%} of MACs", fontsize=10)
    return _with_legend(figure)


def channels(network: str, rows: list[Row], problem: PruningProblem, last: str) -> Figure:
    """Fraction of channels kept in every group, mean over seeds; the highest top-1 above."""
    budgets = sorted({r["budget"] for r in rows}, reverse=True)
    methods = len({label(r) for r in rows})
    size = (3 + 0.3 * len(problem.groups) * len(budgets), 2 + 0.22 * methods)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    panels = figure.subplots(1, len(budgets), squeeze=False)[0]
    for axes, budget in zip(panels, budgets, strict=True):
        here = _by([r for r in rows if r["budget"] == budget])
        here.sort(key=lambda pair: -_top1(pair[1], last))
        kept = [
            np.mean([r["tested"][last]["keep"] for r in mine], axis=0) / problem.channels
            for _, mine in here
        ]
        image = axes.imshow(kept, vmin=0, vmax=1, aspect="auto", cmap="viridis")
        axes.set_yticks(range(len(here)), [name for name, _ in here], fontsize=7)
        names = [group.name for group in problem.groups]
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
        axes.set_title(f"{network}, {budget:.0%} of MACs", fontsize=10)
    figure.colorbar(image, ax=panels, label="fraction of channels kept")
    return figure


def _panels(
    network: str,
    rows: list[Row],
    points: Callable[[list[Row]], list[tuple[float, list[float]]]],
    what: str,
) -> Figure:
    """Top-1 against something, a panel for every budget."""
    budgets = sorted({r["budget"] for r in rows}, reverse=True)
    figure, panels = _figure(len(budgets))
    for axes, budget in zip(panels, budgets, strict=True):
        here = [r for r in rows if r["budget"] == budget]
        for name, mine in _by(here):
            found = points(mine)
            _line(axes, rows, name, [x for x, _ in found], [y for _, y in found])
        axes.set_xscale("log")
        last = list(here[0]["tested"])[-1]
        _finish(axes, here, last, what, f"{network}, {budget:.0%} of MACs")
    return _with_legend(figure)


def _figure(panels: int) -> tuple[Figure, Any]:
    figure = Figure(figsize=(5.2 * panels + 2, 4.8), dpi=120, layout="constrained")
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def _by(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    """Runs by contestant, in the order of the names."""
    names = sorted({label(r) for r in rows})
    return [(name, [r for r in rows if label(r) == name]) for name in names]


def _line(
    axes: Any, rows: list[Row], name: str, x: Sequence[float], values: Sequence[list[float]]
) -> None:
    """A contestant's line, of one colour and style in all panels, with the bootstrap interval."""
    place = sorted({label(r) for r in rows}).index(name)
    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
    colour, style = colours[place % len(colours)], ("-", "--", ":")[place // len(colours) % 3]
    found = [interval(v) for v in values]
    middle = [f["iqm"] for f in found]
    width = 2.4 if name == "lfgcl" else 1.2
    marker = "o" if len(middle) < 5 else None
    axes.plot(
        x, middle, style, label=name, color=colour, linewidth=width, marker=marker, markersize=3
    )
    low = [f.get("low", f["iqm"]) for f in found]
    high = [f.get("high", f["iqm"]) for f in found]
    if len(middle) == 1:
        axes.vlines(x, low, high, color=colour, linewidth=width)
    else:
        axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)


def _finish(axes: Any, rows: list[Row], last: str, what: str, title: str) -> None:
    top = [_top1(mine, last) for _, mine in _by(rows)]
    low = max(min(top), max(top) - POINTS_BELOW)
    axes.set_ylim(low - 1, max(top) + 1.5)
    axes.set(xlabel=what, ylabel="top-1 before any training [%]")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _top1(rows: list[Row], last: str) -> float:
    return interval([r["tested"][last]["top1"] for r in rows])["iqm"]


def _with_legend(figure: Figure) -> Figure:
    """With all that any panel shows."""
    shown = [axes.get_legend_handles_labels() for axes in figure.axes]
    lines = {name: line for lines, names in shown for line, name in zip(lines, names, strict=True)}
    names = sorted(lines)
    handles = [lines[name] for name in names]
    figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize=7)
    return figure
