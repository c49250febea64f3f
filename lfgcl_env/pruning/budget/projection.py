"""From any vector of prune ratios to the strategy on the budget that is nearest in spirit."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lfgcl_env.edge.choices import check_choice
from lfgcl_env.pruning.budget.cost import METRICS, CostModel
from lfgcl_env.pruning.budget.tolerance import allowed_cost

_SHIFT_RANGE = 80.0  # logits: beyond any ratio's own logit plus the full width of the sigmoid


class Projection:
    """Moves prune ratios onto a budget.

    All keep ratios are shifted by one amount in logit space, the largest for which the cost still
    fits (bisection, since cost grows with every keep ratio). What is left of the budget is then
    given out one channel (or ``round_to``) at a time, to the group that lost most to rounding,
    until no group can get another. The result never costs more than the budget, and adding the
    next allowed count of any one group would.

    Args:
        channels: channels of every group.
        cost: the cost model.
        metric: ``"macs"`` or ``"params"``.
        round_to: kept counts are multiples of it, or the whole group.
        min_channels: fewest channels that stay in a group (or the whole of a smaller one).

    Raises:
        ValueError: for an unknown metric, or counts below 1.
    """

    def __init__(
        self,
        channels: Sequence[int],
        cost: CostModel,
        *,
        metric: str = "macs",
        round_to: int = 1,
        min_channels: int = 1,
    ) -> None:
        self.metric = check_choice(metric, METRICS, "budget_metric")
        for name, value in (("round_to", round_to), ("min_channels", min_channels)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        self._cost = cost
        self._round_to = round_to
        self._full = np.array(channels, dtype=np.int64)
        fewest = -(-min_channels // round_to) * round_to
        self._fewest = np.minimum(self._full, fewest)
        # The largest multiple below the full count; between it and the full count lies one step.
        self._last = np.maximum((self._full - 1) // round_to * round_to, self._fewest)
        self._last = np.where(self._fewest == self._full, self._full, self._last)

    @property
    def lowest(self) -> float:
        """The smallest budget that can be met, as a fraction of the baseline's cost."""
        return float(self._cost.many(self._fewest, self.metric)) / self._whole

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
        except (TypeError, ValueError):
            raise ValueError(f"budget must be a number, got {budget!r}") from None
        if not 0.0 < value <= 1.0:
            raise ValueError(
                f"budget is the fraction of the baseline's {self.metric} that may remain: "
                f"a number above 0 and at most 1, got {budget!r}"
            )
        if value < self.lowest:
            raise ValueError(
                f"a budget of {value:g} of the {self.metric} cannot be reached: with these groups "
                f"and the fewest channels allowed, {self.lowest:.4f} to 1 can"
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
        wanted, keep = self._shifted(logits, low)
        above = self._shifted(logits, high)[1]
        if self._cost.many(above, self.metric) <= allowed:
            return above
        # The shift that changes nothing is tried first, so that a strategy projects onto itself.
        middle = 0.0
        while int((above - keep).sum()) > self._round_to and high - low > 1e-9:
            wanted_middle, keep_middle = self._shifted(logits, middle)
            if self._cost.many(keep_middle, self.metric) <= allowed:
                low, wanted, keep = middle, wanted_middle, keep_middle
            else:
                high, above = middle, keep_middle
            middle = (low + high) / 2
        return self._top_up(keep, wanted, allowed)

    def _shifted(
        self, logits: NDArray[np.float64], shift: float
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Wanted (fractional) and allowed (whole) channels after a shift in logit space."""
        wanted = self._full / (1.0 + np.exp(-np.clip(logits + shift, -700, 700)))
        return wanted, self._rounded(wanted)

    def _rounded(self, wanted: NDArray[np.float64]) -> NDArray[np.int64]:
        steps = np.floor(wanted / self._round_to + 0.5).astype(np.int64) * self._round_to
        keep = np.clip(steps, self._fewest, self._last)
        return np.where(wanted > (self._last + self._full) / 2, self._full, keep)

    def _top_up(
        self, keep: NDArray[np.int64], wanted: NDArray[np.float64], allowed: int
    ) -> NDArray[np.int64]:
        keep = keep.copy()
        while True:
            upper = np.where(keep < self._last, keep + self._round_to, self._full)
            upper = np.where((keep < self._last) & (upper > self._last), self._last, upper)
            trials = np.where(np.eye(len(keep), dtype=bool), upper, keep)
            fits = (self._cost.many(trials, self.metric) <= allowed) & (keep < self._full)
            if not fits.any():
                return keep
            best = int(np.argmax(np.where(fits, wanted - keep, -np.inf)))
            keep[best] = upper[best]
