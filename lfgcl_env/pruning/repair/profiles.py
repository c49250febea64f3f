"""How thorough a sequential repair is, and the positions at which layers are fitted."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lfgcl_env.pruning.moments.patches import choose_positions

CHUNK = 64
"""Images that are run at a time."""

_POSITIONS = 64


@dataclass(frozen=True)
class SequentialOptions:
    """Settings of sequential repair; the defaults are those of a delivery.

    Attributes:
        rows: patches that a layer is fitted to, sampled evenly over the images.
        ridge: pull towards the current weights, relative to the mean second moment of a feature.
        relu_aware: how often targets are replaced that lie in a flat part of the ReLU that follows.
        gauss_newton: Gauss-Newton steps between a producer and its consumer; see
            :mod:`lfgcl_env.pruning.repair.gauss_newton`; 0 for none.
        positions: output positions that such a step sees: the first images that have so many; None
            for 64 per image.
        seed: of the sampled positions.
    """

    rows: int = 131072
    ridge: float = 1e-3
    relu_aware: int = 1
    gauss_newton: int = 3
    positions: int | None = None
    seed: int = 0


SCORING = SequentialOptions(rows=16384, gauss_newton=0)
"""For scores and shortlists, on 256 images.

With a Gauss-Newton step it ranks strategies a little better and takes half as long again, see
docs/fidelity.md.
"""

DELIVERING = SequentialOptions()
"""For the network that is handed over."""


class Samples:
    """The output positions that every layer is fitted at, the same for all strategies.

    Args:
        chunks: sizes of the chunks of images.
        options: how many positions, and their seed.
    """

    def __init__(self, chunks: Sequence[int], options: SequentialOptions) -> None:
        self._chunks, self._options = chunks, options
        self._known: dict[int, list[Tensor]] = {}

    def __call__(
        self, number: int, shapes: Sequence[tuple[int, int]], device: torch.device
    ) -> list[Tensor]:
        """Return the positions of a layer, for every chunk; int64, (rows, positions).

        Args:
            number: its call's place among all operations, which decides the random draw.
            shapes: of every chunk's output the length of the first dimension, which holds the
                images or their windows, and the positions that each of these has.
            device: of the positions.
        """
        if number not in self._known:
            generator = torch.Generator().manual_seed(self._options.seed + number)
            wanted = max(1, self._options.rows // sum(count for count, _ in shapes))
            self._known[number] = [
                choose_positions(count, available, wanted, generator).to(device)
                for count, available in shapes
            ]
        return self._known[number]

    def whole_chunks(self, available: int) -> int:
        """Return how many chunks Gauss-Newton steps see of a layer with so many positions."""
        seen, wanted = 0, self._options.positions
        if wanted is None:
            wanted = _POSITIONS * sum(self._chunks)
        for index, count in enumerate(self._chunks, start=1):
            seen += count * available
            if seen >= wanted:
                return index
        return len(self._chunks)
