"""The time of any strategy's network, predicted from a table."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfgcl_env.latency.grid import MOST_KNOTS, choose_knots, fill, isotonic
from lfgcl_env.latency.operations import Axis, Operation
from lfgcl_env.latency.table import Table, Wanted, key_of

Keep = NDArray[np.int64]

_FAR = 0.15
"""The share of a measured time by which a prediction may miss it without a warning."""

_log = logging.getLogger(__name__)


def wanted(operations: Sequence[Operation], allowed: Sequence[Sequence[int]]) -> list[Wanted]:
    """Return what a table has to hold: every different operation once, and its knots.

    Args:
        operations: of the network.
        allowed: counts that every group may keep, ascending.
    """
    found = {
        key_of(operation.signature, knots): Wanted(operation.signature, knots)
        for operation in operations
        for knots in [_knots(operation, allowed)]
    }
    return list(found.values())


def _knots(operation: Operation, allowed: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    most = MOST_KNOTS[len(operation.axes)]
    return tuple(choose_knots(_counts(axis, allowed), most) for axis in operation.axes)


def _counts(axis: Axis, allowed: Sequence[Sequence[int]]) -> Sequence[int]:
    """Return the counts at which an axis may be measured, ascending, without 0."""
    if axis.group is not None:
        return [count for count in allowed[axis.group] if count > 0]
    least = sum(share * max(min(c), 1) for share, c in zip(axis.shares, allowed, strict=True))
    return range(max(least, 1), axis.full + 1)


def anchors(channels: Keep, allowed: Sequence[Sequence[int]]) -> Keep:
    """Return strategies whose networks are measured whole, the baseline first.

    They keep all, three, two and one quarter of the channels, or the next allowed counts above.
    Still thinner networks run in other kernels, by which the rest would be misjudged.

    Args:
        channels: of every group.
        allowed: counts that every group may keep, ascending.
    """
    found = [
        [
            next(c for c in counts if c >= max(share * full, 1))
            for counts, full in zip(allowed, channels, strict=True)
        ]
        for share in (1.0, 0.75, 0.5, 0.25)
    ]
    return np.array(found, dtype=np.int64)


class LatencyModel:
    """Predicts the time of strategies.

    The time of a network is that of its operations, each as the table says, times a factor, and an
    overhead. Both are fitted on networks that were measured whole, see :func:`anchors`: within a
    network, operations find less of their data in the caches than alone, and what lies between
    them takes time too. The baseline's time is met exactly, the others' by least squares.

    Every operation's time grows with every channel, as a projection onto a budget needs: the
    table's are replaced by the nearest ones that do, and every channel takes a nanosecond at least.

    Args:
        operations: of the network.
        table: of their times.
        channels: of every group.
        allowed: counts that every group may keep.

    Raises:
        ValueError: if the table is of another network or other limits.

    Attributes:
        table: what it predicts from.
        factor: by which operations take longer in the network than alone.
        overhead: of the network [ns].
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        table: Table,
        channels: Keep,
        allowed: Sequence[Sequence[int]],
    ) -> None:
        self.table = table
        sums: dict[tuple[Axis, ...], NDArray[np.float64]] = {}
        for operation in operations:
            knots = _knots(operation, allowed)
            entry = table.entries.get(key_of(operation.signature, knots))
            if entry is None:
                raise ValueError(
                    f"latency table {table.checksum} is of another network, batch or limits: it "
                    f"has no {operation.signature.name} of {operation.signature.full} channels"
                )
            times = fill(isotonic(np.maximum(entry.grid, 0.0)), knots, operation.signature.full)
            before = sums.get(operation.axes)
            sums[operation.axes] = times if before is None else before + times
        ends = anchors(channels, allowed)
        if len(table.networks) != len(ends):
            raise ValueError(f"latency table {table.checksum} is of other limits")
        sums_at = np.sum([_look_up(axes, times, ends) for axes, times in sums.items()], axis=0)
        predicted, took = sums_at - sums_at[0], np.array(table.networks) - table.networks[0]
        squares = float(predicted @ predicted)
        self.factor = max(float(predicted @ took) / squares, 0.0) if squares else 0.0
        self.overhead = table.networks[0] - self.factor * float(sums_at[0])
        self._check(np.array(table.networks), self.overhead + self.factor * sums_at)
        self._terms = [
            (axes, _growing(np.rint(times * self.factor).astype(np.int64)))
            for axes, times in sums.items()
        ]
        self._constant = round(self.overhead)

    def _check(self, took: NDArray[np.float64], predicted: NDArray[np.float64]) -> None:
        """Warn where the prediction is far from a network that was measured whole."""
        missed = predicted / took - 1
        worst = int(np.argmax(np.abs(missed)))
        if abs(missed[worst]) > _FAR:
            _log.warning(
                "the latency table predicts %.3g ms for a network that took %.3g ms (%+.0f %%): "
                "budgets of latency are only as exact as that; measure anew on an idle machine, or "
                "choose another latency_runtime",
                predicted[worst] / 1e6,
                took[worst] / 1e6,
                100 * missed[worst],
            )

    def __call__(self, keep: Keep) -> Keep:
        """Predict the times of many strategies, (..., groups) to (...) [ns]; int64."""
        total = np.full(keep.shape[:-1], self._constant, dtype=np.int64)
        for axes, times in self._terms:
            total = total + _look_up(axes, times, keep)
        return total


def _look_up(axes: Sequence[Axis], times: NDArray[Any], keep: Keep) -> NDArray[Any]:
    """Return the times of many strategies, (..., groups) to (...)."""
    groups = [axis.group for axis in axes]
    values = [
        keep[..., group] if group is not None else axis.values(keep)
        for group, axis in zip(groups, axes, strict=True)
    ]
    found: NDArray[Any] = times[tuple(values)]
    return found


def _growing(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Add a nanosecond for every channel, but where the operation does not run."""
    sizes = sum(np.indices(times.shape))
    runs = np.all(np.indices(times.shape) > 0, axis=0)
    grown: NDArray[np.int64] = times + np.where(runs, sizes, 0)
    return grown
