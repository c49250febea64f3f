"""Statistics over seeds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats


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


def _iqm(values: NDArray[np.float64], axis: int = -1) -> Any:
    return stats.trim_mean(values, 0.25, axis=axis)
