"""Which numbers of channels a group may keep: the one place that knows the rounding rule."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Rounding:
    """Kept counts are multiples of ``round_to`` from ``min_channels`` on, or the whole group.

    Args:
        channels: channels of every group.
        round_to: kept counts are multiples of it, or the whole group; one number for all groups,
            or one for each.
        min_channels: fewest channels that stay in a group, or the whole of a smaller one; likewise.

    Attributes:
        full: channels of every group; int64, (groups,).
        fewest: lowest allowed count of every group; int64, (groups,).
        round_to: what counts are multiples of; int64, (groups,).

    >>> rounding = Rounding([10, 3], round_to=4, min_channels=3)
    >>> rounding.counts(0).tolist(), rounding.counts(1).tolist()
    ([4, 8, 10], [3])
    """

    def __init__(
        self,
        channels: Sequence[int],
        round_to: int | Sequence[int] = 1,
        min_channels: int | Sequence[int] = 1,
    ) -> None:
        self.full = np.array(channels, dtype=np.int64)
        # Larger numbers mean the same and might not fit into 64 bits.
        self.round_to = _each(round_to, len(self.full), max(channels) + 1)
        least = _each(min_channels, len(self.full), max(channels))
        self.fewest = np.minimum(self.full, -(-least // self.round_to) * self.round_to)
        # The largest multiple below the full count; between it and the full count lies one step.
        last = np.maximum((self.full - 1) // self.round_to * self.round_to, self.fewest)
        self._last = np.where(self.fewest == self.full, self.full, last)

    def counts(self, group: int) -> NDArray[np.int64]:
        """Return every allowed count of one group, ascending; int64."""
        full = int(self.full[group])
        multiples = range(int(self.fewest[group]), full, int(self.round_to[group]))
        return np.array([*multiples, full], dtype=np.int64)

    def nearest(self, wanted: NDArray[np.float64]) -> NDArray[np.int64]:
        """Round fractional counts to the nearest allowed ones, up where two are equally near.

        Args:
            wanted: (groups,).
        """
        multiples = np.floor(wanted / self.round_to + 0.5).astype(np.int64) * self.round_to
        keep = np.clip(multiples, self.fewest, self._last)
        return np.where(wanted > (self._last + self.full) / 2, self.full, keep)

    def next_above(self, keep: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the next allowed count above each of ``keep``; the full count stays."""
        return np.where(keep < self._last, np.minimum(keep + self.round_to, self._last), self.full)


def _each(numbers: int | Sequence[int], groups: int, most: int) -> NDArray[np.int64]:
    every = [numbers] * groups if isinstance(numbers, int) else numbers
    return np.array([min(int(number), most) for number in every], dtype=np.int64)
