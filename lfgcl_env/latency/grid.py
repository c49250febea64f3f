"""Where tables are measured, how they are made monotone, and what lies between."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

MOST_KNOTS = {1: 24, 2: 8}
"""Most counts that are measured along an axis, by the number of axes."""

_STEP = 8
"""Kernels compute whole vectors of channels: 8 or 16 floats."""


def choose_knots(allowed: Sequence[int], most: int) -> tuple[int, ...]:
    """Choose the counts to measure.

    Where they are too many, multiples of a power of two are taken and, while there is room, their
    next counts: times jump there, because kernels compute whole vectors of channels.

    Args:
        allowed: counts, ascending.
        most: to choose.

    >>> choose_knots(range(1, 6), 8)
    (1, 2, 3, 4, 5)
    >>> choose_knots(range(1, 65), 24)
    (1, 2, 4, 8, 9, 16, 17, 24, 25, 32, 33, 40, 41, 48, 49, 56, 57, 64)
    """
    counts = np.array(allowed, dtype=np.int64)
    if len(counts) <= most:
        return tuple(int(count) for count in counts)
    ends = {int(counts[0]), int(counts[-1])}
    step = _STEP
    while counts[-1] // step > most - len(ends):
        step *= 2
    chosen = ends | _nearest(counts, np.arange(step, counts[-1] + 1, step))
    for more in (np.arange(step, counts[-1], step) + 1, np.array([1, 2, 4]), np.array([2, 4])):
        extended = chosen | _nearest(counts, more)
        if len(extended) <= most:
            chosen = extended
    return tuple(sorted(chosen))


def _nearest(counts: NDArray[np.int64], wanted: NDArray[np.int64]) -> set[int]:
    """Return the allowed counts at or above those wanted."""
    places = np.minimum(np.searchsorted(counts, wanted), len(counts) - 1)
    return {int(counts[place]) for place in places}


def isotonic(times: Values) -> Values:
    """Return the times that grow along every axis and are nearest to those given.

    Nearest under the largest difference: halfway between the running maximum from below and the
    running minimum from above (Stout, "Isotonic regression for multiple independent variables",
    Algorithmica 71, 2015, section 2: "Basic").

    >>> isotonic(np.array([1.0, 3.0, 2.0, 4.0])).tolist()
    [1.0, 2.5, 2.5, 4.0]
    """
    above, below = times.astype(np.float64), times.astype(np.float64)
    for axis in range(times.ndim):
        above = np.maximum.accumulate(above, axis)
        below = np.flip(np.minimum.accumulate(np.flip(below, axis), axis), axis)
    grown: Values = (above + below) / 2
    return grown


def fill(times: Values, knots: Sequence[Sequence[int]], full: Sequence[int]) -> Values:
    """Interpolate a grid linearly along every axis, to all counts from 0 on.

    Without channels an operation does not run, so 0 of any axis takes no time. Below the first
    knot the first one's time holds.

    Args:
        times: at the knots.
        knots: along every axis, ascending.
        full: the highest count of every axis.

    >>> fill(np.array([10.0, 30.0]), [[2, 4]], [4]).tolist()
    [0.0, 10.0, 10.0, 20.0, 30.0]
    """
    for axis, (places, most) in enumerate(zip(knots, full, strict=True)):
        lines = np.moveaxis(times, axis, -1)
        counts = np.arange(most + 1)
        filled = [np.interp(counts, places, line) for line in lines.reshape(-1, len(places))]
        grid = np.array(filled).reshape(*lines.shape[:-1], most + 1)
        grid[..., 0] = 0.0
        times = np.moveaxis(grid, -1, axis)
    return times
