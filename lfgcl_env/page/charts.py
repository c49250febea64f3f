"""Charts as inline SVG, in the colours that the page sets by class."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from lfgcl_env.page.markup import Html, element, join

_WIDTH, _HEIGHT = 520, 290
_LARGEST = 1e100
_RIGHT, _TOP, _BOTTOM = 12, 14, 44

TITLE, DIGIT, GAP = 20, 10.5, 6
"""Widths of the vertical axis's title, a digit at it, and their distance, on a phone."""


@dataclass(frozen=True)
class Line:
    """Points that belong together.

    Attributes:
        name: shown when somebody points at it.
        points: (x, y).
        style: ``"line"``, ``"step"`` or ``"dots"``.
        kind: a class of the page: ``"strong"``, ``"weak"``, ``"second"``.
    """

    name: str
    points: Sequence[tuple[float, float]] = field(repr=False)
    style: str = "line"
    kind: str = "strong"


def chart(lines: Sequence[Line], x: str, y: str, *, logarithmic: bool = False) -> Html:
    """Draw lines and dots on common axes.

    Args:
        lines: the later ones cover the earlier.
        x: what the horizontal axis shows.
        y: what the vertical axis shows.
        logarithmic: whether the vertical axis is; points at 0 or below are left out, and so are
            those beyond what can be drawn.
    """
    lowest = 0.0 if logarithmic else -_LARGEST
    shown = [(line, [p for p in line.points if lowest < p[1] < _LARGEST]) for line in lines]
    xs = [p[0] for _, points in shown for p in points]
    ys = [p[1] for _, points in shown for p in points]
    if not xs:
        return Html("")
    if logarithmic:
        up, y_ticks = _log_axis(min(ys), max(ys), _HEIGHT - _BOTTOM, _TOP)
    else:
        up, y_ticks = _axis(min(ys), max(ys), _HEIGHT - _BOTTOM, _TOP)
    left = TITLE + DIGIT * max(len(f"{value:g}") for value in [0.5, *y_ticks]) + GAP
    across, x_ticks = _axis(min(xs), max(xs), left, _WIDTH - _RIGHT)
    if all(isinstance(value, int) for value in xs):
        x_ticks = [value for value in x_ticks if value == round(value)]
    parts = [_grid(left, across, x_ticks, up, y_ticks), _labels(left, x, y)]
    for line, points in shown:
        places = [(across(px), up(py)) for px, py in points]
        parts.append(_dots(line, places) if line.style == "dots" else _path(line, places))
    drawn = element(
        "svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=f"{y} by {x}"
    )
    return element("div", drawn, class_="scroll")


def bar(before: float, after: float, most: float) -> Html:
    """Draw what is left of what there was, as a share of the most there is anywhere."""
    whole, left = (100 * value / most if most else 0.0 for value in (before, after))
    return element(
        "div",
        element("div", class_="whole", style=f"width:{whole:.2f}%"),
        element("div", class_="left", style=f"width:{left:.2f}%"),
        class_="bar",
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers from low to high.

    >>> ticks(0.0, 1.0), ticks(1, 12)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [5.0, 10.0])
    """
    if not (high - low) / about >= sys.float_info.min:  # also where that underflows
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / about))
    step = next(power * f for f in (1, 2, 5, 10) if (high - low) / (power * f) <= about)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def _axis(
    low: float, high: float, start: float, end: float
) -> tuple[Callable[[float], float], list[float]]:
    if not high > low:
        pad = abs(low) * 0.01 or 1.0
        low, high = low - pad, high + pad
    room = 0.04 * (high - low)
    first, last = low - room, high + room
    return (
        lambda value: start + (value - first) / (last - first) * (end - start),
        ticks(low, high),
    )


def _log_axis(
    low: float, high: float, start: float, end: float
) -> tuple[Callable[[float], float], list[float]]:
    place, _ = _axis(math.log10(low), math.log10(high), start, end)
    powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    step = max(1, len(powers) // 5)
    return (lambda value: place(math.log10(value)), [10.0**power for power in powers][::step])


def _grid(
    left: float,
    across: Callable[[float], float],
    x_ticks: Sequence[float],
    up: Callable[[float], float],
    y_ticks: Sequence[float],
) -> Html:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for value in x_ticks:
        parts.append(_text(f"{value:g}", across(value), bottom + 18, "middle"))
    for value in y_ticks:
        height = f"{up(value):.1f}"
        parts.append(element("line", x1=left, x2=right, y1=height, y2=height, class_="grid"))
        parts.append(_text(f"{value:g}", left - GAP, up(value) + 4, "end"))
    return join([*parts, element("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="axis")])


def _labels(left: float, x: str, y: str) -> Html:
    middle = (_HEIGHT - _BOTTOM + _TOP) / 2
    return join(
        [
            _text(x, (left + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, "middle"),
            element(
                "text", y, x=12, y=middle, text_anchor="middle",
                transform=f"rotate(-90 12 {middle})",
            ),
        ]
    )  # fmt: skip


def _text(text: str, x: float, y: float, anchor: str) -> Html:
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _path(line: Line, places: Sequence[tuple[float, float]]) -> Html:
    drawn = list(places[:1])
    for before, after in pairwise(places):
        drawn += [(after[0], before[1])] * (line.style == "step") + [after]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
    title = element("title", line.name)
    return element("polyline", title, points=points, class_=f"curve {line.kind}")


def _dots(line: Line, places: Sequence[tuple[float, float]]) -> Html:
    title = element("title", line.name)
    dots = [element("circle", title, cx=f"{x:.1f}", cy=f"{y:.1f}", r=3) for x, y in places]
    return element("g", *dots, class_=f"dots {line.kind}")
