"""Rendering of a strategy: a table for terminals, a bar chart for windows and videos."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfgcl_env.pruning.evaluation import Evaluation
from lfgcl_env.pruning.problem import PruningProblem

_BAR = 24


class Window:
    """Shows pictures one after the other; opens with the first, which needs matplotlib."""

    def __init__(self) -> None:
        self._figure: Any = None

    def show(self, frame: NDArray[np.uint8]) -> None:
        """Show a picture (height, width, 3)."""
        from matplotlib import pyplot

        if self._figure is None:
            pyplot.ion()
            self._figure = pyplot.figure("LFGCL", figsize=(8, 4.8))
            axes = self._figure.add_axes((0, 0, 1, 1))
            axes.axis("off")
            self._shown = axes.imshow(frame)
        self._shown.set_data(frame)
        self._figure.canvas.draw_idle()
        self._figure.canvas.flush_events()

    def close(self) -> None:
        """Close the window, if it is open."""
        if self._figure is not None:
            from matplotlib import pyplot

            pyplot.close(self._figure)
            self._figure = None


def table(problem: PruningProblem, keep: NDArray[np.int64], evaluation: Evaluation | None) -> str:
    """Write a table with one line per group, and the totals.

    Channels are counted in the layer that names a group, also where they go in bundles.

    Args:
        problem: what is pruned.
        keep: channels kept in every group.
        evaluation: of ``keep``; None if it was not scored.
    """
    width = max(len("group"), *(len(group.name) for group in problem.groups))
    lines = [f"{'group':<{width}}  kept / all  {'keep ratio':<{_BAR + 6}}"]
    for group, kept in zip(problem.groups, keep.tolist(), strict=True):
        ratio = kept / group.channels
        bar = "#" * round(ratio * _BAR)
        channels, whole = kept * group.bundle, group.channels * group.bundle
        lines.append(
            f"{group.name:<{width}}  {channels:>4} / {whole:<4} {bar:<{_BAR}} {ratio:5.2f}"
        )
    return "\n".join([*lines, summary(problem, keep, evaluation)])


def summary(problem: PruningProblem, keep: NDArray[np.int64], evaluation: Evaluation | None) -> str:
    """Write one line with MACs, parameters and similarity."""
    cost, whole = problem.cost(keep), problem.baseline_cost
    similarity = "not scored" if evaluation is None else f"{evaluation.similarity:.4f}"
    return (
        f"MACs {cost.macs / 1e6:.2f} M of {whole.macs / 1e6:.2f} M "
        f"({cost.macs / whole.macs:.1%}), params {cost.params:,} of {whole.params:,} "
        f"({cost.params / whole.params:.1%}), {problem.similarity} similarity {similarity}"
    )


def picture(
    problem: PruningProblem, keep: NDArray[np.int64], evaluation: Evaluation | None
) -> NDArray[np.uint8]:
    """Draw bars of kept channels per group, and the totals; (480, 800, 3), uint8.

    Raises:
        ImportError: if matplotlib is missing; names the extra to install.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "rendering as a picture needs matplotlib: run `pip install lfgcl-env[plots]`"
        ) from error
    figure = Figure(figsize=(8, 4.8), dpi=100, layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.subplots()
    positions = np.arange(len(keep))
    bundles = np.array([group.bundle for group in problem.groups])
    axes.bar(positions, problem.channels * bundles, color="#d9dde3", label="baseline")
    axes.bar(positions, keep * bundles, color="#2a6fbb", label="kept")
    axes.set_xlabel("group")
    axes.set_ylabel("channels")
    axes.set_title(summary(problem, keep, evaluation), fontsize=8)
    axes.legend(loc="upper left", fontsize=8)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
