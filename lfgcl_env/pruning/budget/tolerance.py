"""Whether a cost meets a budget: the one place that knows the tolerance."""

import math

TOLERANCE = 1e-12
"""Relative: it forgives the rounding of a product, never a whole multiply-accumulate."""


def allowed_cost(budget: float, whole: int) -> int:
    """Return the highest cost that meets a budget.

    Args:
        budget: fraction of the baseline's cost.
        whole: the baseline's cost.

    >>> allowed_cost(0.5, 101), allowed_cost(0.1 + 0.2, 10)
    (50, 3)
    """
    return math.floor(budget * whole * (1 + TOLERANCE))


def label(budget: float) -> str:
    """Write a budget with at least two digits, as files and logs are named after it.

    >>> label(0.3), label(0.375)
    ('0.30', '0.375')
    """
    whole, _, digits = f"{budget:.6f}".rstrip("0").partition(".")
    return f"{whole}.{digits:0<2}"
