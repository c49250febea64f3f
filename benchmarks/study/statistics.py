"""Statistics over seeds and strategies."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from study.records import Fields


def interval(values: Sequence[float]) -> dict[str, float]:
    """Return the interquartile mean ``iqm`` and its 95 % percentile-bootstrap interval.

    ``low`` and ``high`` are missing where all values are the same.

    >>> interval([1.0, 1.0])
    {'iqm': 1.0}
    """
    sample = np.array(values)
    found = {"iqm": round(float(_iqm(sample)), 5)}
    if len(sample) > 1 and np.ptp(sample) > 0:
        ends = stats.bootstrap(
            (sample,), _iqm, method="percentile", n_resamples=2000, rng=np.random.default_rng(0)
        ).confidence_interval
        found |= {"low": round(float(ends.low), 5), "high": round(float(ends.high), 5)}
    return found


def correlation(values: NDArray[np.float64], top1: NDArray[np.float64]) -> Fields:
    """Return Spearman's correlation and its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(top1), size=(1000, len(top1)))
    ranks = [stats.spearmanr(values[d], top1[d]).statistic for d in drawn]
    low, high = np.nanpercentile(ranks, [2.5, 97.5])
    return {
        "spearman": round(float(stats.spearmanr(values, top1).statistic), 3),
        "interval": [round(float(low), 3), round(float(high), 3)],
        "strategies": len(top1),
    }


def _iqm(values: NDArray[np.float64], axis: int = -1) -> Any:
    return stats.trim_mean(values, 0.25, axis=axis)


def correlation_cell(found: Fields | None) -> str:
    """Return a table's cell for a :func:`correlation`; empty for None.

    >>> correlation_cell({"spearman": 0.8, "interval": [0.7, 0.9]})
    '0.80 (0.70 to 0.90)'
    """
    if found is None:
        return ""
    low, high = found["interval"]
    return f"{found['spearman']:.2f} ({low:.2f} to {high:.2f})"
