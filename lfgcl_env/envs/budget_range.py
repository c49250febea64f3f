"""The budgets of episodes: one number, or a range that they are drawn from."""

import math
from collections.abc import Sequence

import numpy as np

Budget = float | Sequence[float]


def budget_range(budget: Budget) -> tuple[float, float]:
    """Return the lowest and highest budget of an episode, equal if there is but one.

    Whether they can be reached is for the problem to say.

    Raises:
        ValueError: if it is neither a number nor a range of numbers above 0 and at most 1.

    >>> budget_range(0.5), budget_range([0.3, 0.8])
    ((0.5, 0.5), (0.3, 0.8))
    """
    if isinstance(budget, Sequence) and not isinstance(budget, str):
        if len(budget) != 2 or not all(_is_number(b) for b in budget) or budget[0] > budget[1]:
            raise ValueError(f"a range of budgets is (low, high) with low <= high, got {budget!r}")
        if not 0 < budget[0] <= budget[1] <= 1:
            raise ValueError(f"budgets lie above 0 and at most at 1, got {budget!r}")
        return float(budget[0]), float(budget[1])
    if not _is_number(budget):
        raise ValueError(f"budget must be a number or a range (low, high), got {budget!r}")
    return float(budget), float(budget)  # type: ignore[arg-type]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and math.isfinite(float(value))
