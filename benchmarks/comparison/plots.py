"""Plots of a comparison: top-1 of all methods and against its cost; curves; channels kept."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from lfgcl_env.baselines.quoted import QUOTED
from matplotlib import colormaps
from matplotlib.figure import Figure
from study import Fields, interval

from comparison.methods import AGENTS, BASELINES
from comparison.records import label, results_file, seconds
from lfgcl_env.edge.files import write_png
from lfgcl_env.pruning import PruningProblem

POINTS_BELOW = 25
"""Top-1 so many points below the best is cut off."""

COLOURS = 10
"""So many methods can be distinguished by colour."""

HIGHLIGHTED = (
    "lfgcl", "allocation", "random", "uniform", "amc (AMC-similarity)", "amc", "cma_es", "ddpg",
    "legr", "l1",
)  # fmt: skip
"""Drawn in colour where there are more methods than colours, after users' own agents."""

OTHERS = "others"

Points = list[tuple[float, list[float]]]
"""x, and the values of all seeds there."""


@dataclass(frozen=True)
class Plots:
    """All plots of a network's runs.

    Attributes:
        network: its name.
        records: of its runs.
        problem: the network's groups and costs.
        evaluations: after which the accuracy is shown.
    """

    network: str
    records: list[Fields]
    problem: PruningProblem
    evaluations: int

    def draw(self, folder: Path) -> Iterator[Path]:
        """Draw all plots to a folder, and yield the files written."""
        stem = results_file(folder, self.network).with_suffix("")
        plots: dict[str, Callable[[], Figure]] = {
            "top1": self.all_methods,
            "macs": self.against_macs,
            "evaluations": self.against_evaluations,
            "seconds": self.against_seconds,
            "similarity": self.curves,
            "channels": self.channels,
        }
        for name, plot in plots.items():
            path = stem.with_name(f"{stem.name}_{name}.png")
            yield write_png(path, plot())

    def all_methods(self) -> Figure:
        """Draw top-1 of every method with its interval, in the order of the middle budget."""
        budgets = list(self._by_budget)
        size = (1.6 + 3.2 * len(budgets), 0.9 + 0.2 * len(self._names))
        figure = Figure(figsize=size, dpi=120, layout="constrained")
        panels = figure.subplots(1, len(budgets), squeeze=False, sharey=True)[0]
        found: dict[tuple[float, str], dict[str, float]] = {
            (budget, name): self._top1(mine)
            for budget, here in self._by_budget.items()
            for name, mine in _by(here)
        }
        middle = budgets[len(budgets) // 2]
        names = sorted(self._names, key=lambda n: found.get((middle, n), {"iqm": 0.0})["iqm"])
        for axes, budget in zip(panels, budgets, strict=True):
            for height, name in enumerate(names):
                if (budget, name) in found:
                    value = found[budget, name]
                    colour = self._colour(name)
                    ends = value.get("low", value["iqm"]), value.get("high", value["iqm"])
                    axes.hlines(height, *ends, color=colour, linewidth=3, alpha=0.5)
                    axes.plot(value["iqm"], height, "o", color=colour, markersize=4)
            axes.grid(axis="x", linewidth=0.4)
            axes.set(xlabel="top-1 before any training [%]")
            axes.set_title(f"{self.network}, {budget:.0%} of MACs", fontsize=10)
            axes.spines[["top", "right"]].set_visible(False)
        panels[0].set_yticks(range(len(names)), names, fontsize=8)
        return figure

    def against_macs(self) -> Figure:
        """Draw top-1 against the fraction of MACs kept; quoted results as crosses."""
        figure, (axes,) = _figure(1)
        for name, mine in _by(self.records):
            points: Points = []
            for budget in sorted({r["budget"] for r in mine}):
                found = [r["tested"][self._last] for r in mine if r["budget"] == budget]
                macs = float(np.mean([self.problem.cost(f["keep"]).macs for f in found]))
                top1 = [f["top1"] for f in found]
                points.append((macs / self.problem.baseline_cost.macs, top1))
            self._line(axes, name, points)
        for quoted in (q for q in QUOTED if q.network == self.network):
            place = quoted.macs_ratio, quoted.top1
            axes.plot(*place, "x", color="grey")
            trained = {True: ", fine-tuned", False: "", None: ", fine-tuned?"}[quoted.fine_tuned]
            text = f"{quoted.method}, quoted{trained}"
            axes.annotate(text, place, (4, 2), textcoords="offset points", fontsize=6, color="grey")
        _limit(axes)
        axes.set(
            xlabel="fraction of MACs kept", ylabel="top-1 before any training, unless quoted [%]"
        )
        axes.set_title(f"{self.network}, {self._last} evaluations", fontsize=10)
        return _with_legend(figure)

    def against_evaluations(self) -> Figure:
        """Draw top-1 of the best strategy after so many evaluations, for every budget."""

        def points(mine: list[Fields]) -> Points:
            if all(r["scored"] == 1 for r in mine):
                counts = list(mine[0]["tested"])[-1:]
            else:
                counts = [c for c in mine[0]["tested"] if all(c in r["tested"] for r in mine)]
            return [
                (
                    float(np.median([min(int(c), r["scored"]) for r in mine])),
                    [r["tested"][c]["top1"] for r in mine],
                )
                for c in counts
            ]

        return self._panels(points, "evaluations")

    def against_seconds(self) -> Figure:
        """Draw top-1 against the time of the whole search, for every budget."""

        def points(mine: list[Fields]) -> Points:
            took = float(np.median([seconds(r, self.evaluations) for r in mine]))
            return [(max(took, 0.05), [r["tested"][self._last]["top1"] for r in mine])]

        return self._panels(points, "seconds of search")

    def curves(self) -> Figure:
        """Draw the best similarity against evaluations, for every budget."""
        figure, panels = _figure(len(self._by_budget))
        for axes, (budget, here) in zip(panels, self._by_budget.items(), strict=True):
            for name, mine in _by(here):
                counts = [c for c in mine[0]["best"] if all(c in r["best"] for r in mine)]
                self._line(axes, name, [(int(c), [r["best"][c] for r in mine]) for c in counts])
            best = max(max(r["best"].values()) for r in here)
            axes.set(xscale="log", xlabel="evaluations", ylabel="similarity of the best so far")
            axes.set_ylim(best - 0.3, best + 0.01)
            axes.set_title(f"{self.network}, {budget:.0%} of MACs", fontsize=10)
        return _with_legend(figure)

    def channels(self) -> Figure:
        """Draw the mean fraction of channels kept in every group; the best method at the top."""
        groups = [group.name for group in self.problem.groups]
        size = (3 + 0.3 * len(groups) * len(self._by_budget), 2 + 0.22 * len(self._names))
        figure = Figure(figsize=size, dpi=120, layout="constrained")
        panels = figure.subplots(1, len(self._by_budget), squeeze=False)[0]
        for axes, (budget, records) in zip(panels, self._by_budget.items(), strict=True):
            here = sorted(_by(records), key=lambda pair: -self._top1(pair[1])["iqm"])
            kept = [
                np.mean([r["tested"][self._last]["keep"] for r in mine], axis=0)
                / self.problem.channels
                for _, mine in here
            ]
            image = axes.imshow(kept, vmin=0, vmax=1, aspect="auto", cmap="viridis")
            axes.set_yticks(range(len(here)), [name for name, _ in here], fontsize=7)
            axes.set_xticks(range(len(groups)), groups, rotation=90, fontsize=6)
            axes.set_title(f"{self.network}, {budget:.0%} of MACs", fontsize=10)
        figure.colorbar(image, ax=panels, label="fraction of channels kept")
        return figure

    def _panels(self, points: Callable[[list[Fields]], Points], what: str) -> Figure:
        """Draw top-1 against something, a panel for every budget."""
        figure, panels = _figure(len(self._by_budget))
        for axes, (budget, here) in zip(panels, self._by_budget.items(), strict=True):
            for name, mine in _by(here):
                self._line(axes, name, points(mine))
            _limit(axes)
            axes.set(xscale="log", xlabel=what, ylabel="top-1 before any training [%]")
            axes.set_title(f"{self.network}, {budget:.0%} of MACs", fontsize=10)
        return _with_legend(figure)

    def _line(self, axes: Any, name: str, points: Points) -> None:
        """Draw a method's line, of one colour in all panels, with the bootstrap interval."""
        x = [place for place, _ in points]
        found = [interval(values) for _, values in points]
        middle = [f["iqm"] for f in found]
        colour, shown = self._colour(name), name in self._coloured
        look = {
            "color": colour,
            "label": name if shown else OTHERS,
            "linewidth": 2.4 if name == "lfgcl" else 1.2 if shown else 0.8,
            "zorder": 2 if shown else 1,
        }
        axes.plot(x, middle, marker="o" if len(middle) < 5 else None, markersize=3, **look)
        if not shown:
            return
        low = [f.get("low", f["iqm"]) for f in found]
        high = [f.get("high", f["iqm"]) for f in found]
        if len(middle) == 1:
            axes.vlines(x, low, high, color=colour, linewidth=1.2)
        else:
            axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)

    def _top1(self, records: list[Fields]) -> dict[str, float]:
        return interval([r["tested"][self._last]["top1"] for r in records])

    def _colour(self, name: str) -> Any:
        colours = colormaps["tab10"].colors  # type: ignore[attr-defined]
        return colours[self._coloured.index(name)] if name in self._coloured else "silver"

    @property
    def _last(self) -> str:
        return str(self.evaluations)

    @cached_property
    def _by_budget(self) -> dict[float, list[Fields]]:
        """Records by budget, the highest first: a panel each."""
        budgets = sorted({r["budget"] for r in self.records}, reverse=True)
        return {budget: [r for r in self.records if r["budget"] == budget] for budget in budgets}

    @cached_property
    def _names(self) -> list[str]:
        return sorted({label(r) for r in self.records})

    @cached_property
    def _coloured(self) -> list[str]:
        """All, if there are colours enough; else users' own agents, and ``HIGHLIGHTED``."""
        if len(self._names) <= COLOURS:
            return self._names
        own = {label(r) for r in self.records if r["agent"] not in (*AGENTS, *BASELINES)}
        usual = [name for name in HIGHLIGHTED if name in self._names]
        return [*sorted(own), *usual][:COLOURS]


def _limit(axes: Any) -> None:
    """Show all points down to ``POINTS_BELOW`` the best."""
    drawn = [float(y) for line in axes.lines for y in line.get_ydata()]
    low = max(min(drawn), max(drawn) - POINTS_BELOW)
    axes.set_ylim(low - 1, max(drawn) + 1)
    axes.spines[["top", "right"]].set_visible(False)


def _by(records: Sequence[Fields]) -> list[tuple[str, list[Fields]]]:
    """Return records by method, in the order of the names."""
    found: dict[str, list[Fields]] = {}
    for record in records:
        found.setdefault(label(record), []).append(record)
    return sorted(found.items(), key=lambda item: item[0])


def _figure(panels: int) -> tuple[Figure, Any]:
    figure = Figure(figsize=(5.2 * panels + 2, 4.8), dpi=120, layout="constrained")
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def _with_legend(figure: Figure) -> Figure:
    """Add a legend of the lines of all panels."""
    shown = [axes.get_legend_handles_labels() for axes in figure.axes]
    lines = {name: line for lines, names in shown for line, name in zip(lines, names, strict=True)}
    names = sorted(lines, key=lambda name: (name == OTHERS, name))
    handles = [lines[name] for name in names]
    figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize=7)
    return figure
