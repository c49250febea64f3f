"""A picture of a sweep: scores of networks against their MACs."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from lfgcl_env.edge.files import write_png


def draw(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    path: Path,
    what: str,
    dots: Sequence[tuple[float, float]] = (),
) -> Path | None:
    """Draw scores of networks against their MACs as a PNG.

    Args:
        lines: points (MACs [M], score) of every line by its name.
        path: the file to write.
        what: name of the score.
        dots: more points, of networks that were tried.

    Returns:
        The path, or None if matplotlib is missing.

    Raises:
        OSError: if the file cannot be written.
    """
    if find_spec("matplotlib") is None:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    if dots:
        macs, scores = zip(*dots, strict=True)
        axes.scatter(macs, scores, s=6, color="#d0d4da", label="tried", zorder=1)
    for name, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name, zorder=2)
    axes.set_xlabel("MACs [M]")
    axes.set_ylabel(what)
    axes.grid(color="#eceef1")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    return write_png(path, figure)
