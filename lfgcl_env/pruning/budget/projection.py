"""From any vector of prune ratios to the strategy on the budget that shifts all of them alike."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lfgcl_env.edge.schema import short
from lfgcl_env.pruning.budget.rounding import Rounding
from lfgcl_env.pruning.budget.tolerance import allowed_cost
from lfgcl_env.pruning.structure.cost import CostModel

_SHIFT_RANGE = 80.0  # logits: beyond any ratio's own logit plus the full width of the sigmoid


class Projection:
    """Moves prune ratios onto a budget.

    All keep ratios are shifted by one amount in logit space, the largest for which the cost still
    fits (bisection, since cost grows with every keep ratio). What is left of the budget is then
    given out one channel (or ``round_to``) at a time, to the group that lost most to rounding,
    until no group can get another; to groups that keep nothing only where no other can. The result
    never costs more than the budget, and adding the next allowed count of any one group would, or
    would cost nothing: between layers that lost all their channels.

    Args:
        rounding: the counts that groups may keep.
        cost: the cost model.
        metric: what the budget counts, a name in
            :data:`~lfgcl_env.pruning.structure.cost.METRICS`.
        ways: to reach lower budgets, such as ``"a lower min_channels"``, for messages.
    """

    def __init__(
        self,
        rounding: Rounding,
        cost: CostModel,
        *,
        metric: str = "macs",
        ways: Sequence[str] = (),
    ) -> None:
        self.metric = metric
        self._cost = cost
        self._rounding = rounding
        self._full = rounding.full
        self._ways = ways

    @property
    def lowest(self) -> float:
        """The smallest budget that can be met, as a fraction of the baseline's cost."""
        return float(self._cost.many(self._rounding.fewest, self.metric)) / self._whole

    @property
    def _whole(self) -> int:
        return self._cost.of_baseline(self.metric)

    def check_budget(self, budget: float) -> float:
        """Return ``budget`` as a float.

        Raises:
            ValueError: if it is not a number above zero and at most 1, or cannot be reached.
        """
        try:
            value = float(budget)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"budget must be a number, got {short(budget)}") from None
        if not 0.0 < value <= 1.0:
            raise ValueError(
                f"budget is the fraction of the baseline's {self.metric} that may remain: "
                f"a number above 0 and at most 1, got {short(budget)}"
            )
        if value < self.lowest:
            raise ValueError(
                f"a budget of {value:g} of the {self.metric} cannot be reached: with these groups "
                f"and the fewest channels allowed, {self.lowest:.4f} to 1 can"
                + (f", or less with {' or '.join(self._ways)}" if self._ways else "")
            )
        return value

    def __call__(self, prune_ratios: NDArray[np.floating], budget: float) -> NDArray[np.int64]:
        """Project ``prune_ratios`` onto ``budget``.

        Args:
            prune_ratios: fraction of each group's channels to remove, in [0, 1]; (groups,).
            budget: fraction of the baseline's cost, checked by :meth:`check_budget`.

        Returns:
            Channels kept in every group; int64, (groups,).
        """
        allowed = allowed_cost(budget, self._whole)
        # A quarter of a channel from either end keeps logits finite and rounds back to the ends.
        edge = 0.25 / self._full
        keep_ratios = np.clip(1.0 - np.asarray(prune_ratios, np.float64), edge, 1.0 - edge)
        logits = np.log(keep_ratios) - np.log1p(-keep_ratios)

        low, high = -_SHIFT_RANGE, _SHIFT_RANGE
        wanted, keep = self._shift(logits, low)
        above = self._shift(logits, high)[1]
        if self._cost.many(above, self.metric) <= allowed:
            return above
        # The shift that changes nothing is tried first, so that a strategy projects onto itself.
        middle = 0.0
        while self._steps(keep, above) > 1 and high - low > 1e-9:
            wanted_middle, keep_middle = self._shift(logits, middle)
            if self._cost.many(keep_middle, self.metric) <= allowed:
                low, wanted, keep = middle, wanted_middle, keep_middle
            else:
                high, above = middle, keep_middle
            middle = (low + high) / 2
        return self._top_up(self._without_idle(keep), wanted, allowed)

    def _steps(self, keep: NDArray[np.int64], above: NDArray[np.int64]) -> float:
        """Return how many steps of one group lie between two strategies."""
        return float(((above - keep) / self._rounding.round_to).sum()) - 1e-9

    def _shift(
        self, logits: NDArray[np.float64], shift: float
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return wanted (fractional) and allowed (whole) channels after a shift of the logits."""
        wanted = self._full / (1.0 + np.exp(-np.clip(logits + shift, -700, 700)))
        return wanted, self._rounding.nearest(wanted)

    def _without_idle(self, keep: NDArray[np.int64]) -> NDArray[np.int64]:
        """Take back the channels between layers that have none left: they cost and do nothing."""
        if keep.all():
            return keep
        fewer = np.where(np.eye(len(keep), dtype=bool), self._rounding.fewest, keep)
        idle = self._cost.many(fewer, self.metric) == self._cost.many(keep, self.metric)
        return np.where(idle, self._rounding.fewest, keep)

    def _top_up(
        self, keep: NDArray[np.int64], wanted: NDArray[np.float64], allowed: int
    ) -> NDArray[np.int64]:
        """Give out what is left of the budget, one step of one group at a time."""
        keep = keep.copy()
        while True:
            upper = self._rounding.next_above(keep)
            trials = np.where(np.eye(len(keep), dtype=bool), upper, keep)
            costs = self._cost.many(trials, self.metric)
            # What costs nothing does nothing, or is whole already.
            fits = (costs <= allowed) & (costs > self._cost.many(keep, self.metric))
            if not fits.any():
                return keep
            # A whole block is not brought back for what rounding left over.
            lost = np.where(keep > 0, wanted - keep, wanted - keep - self._full.max())
            best = int(np.argmax(np.where(fits, lost, -np.inf)))
            keep[best] = upper[best]
