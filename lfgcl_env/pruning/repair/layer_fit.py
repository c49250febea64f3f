"""One layer's least-squares problem inside sequential repair."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lfgcl_env.pruning.moments.patches import choose_positions, gram
from lfgcl_env.pruning.moments.second_moments import ridge_of, ridge_strength, solve_ridge
from lfgcl_env.pruning.repair.conv_bn import ConvBN


@dataclass
class Fit:
    """A layer, its inputs in the pruned network, and its targets.

    Attributes:
        layer: the layer with its BatchNorm; its weights are changed.
        inputs: its inputs in the pruned network, in chunks of images.
        target: the baseline's values at the layer's point, for the channels that stay.
        other: the other operand of the addition at that point in the pruned network, or None.
        relu: whether a ReLU follows the point, so that all targets below zero mean the same.
        chosen: sampled output positions of every chunk; int64, (images, positions).
        ridge: see :class:`~lfgcl_env.pruning.repair.sequential.SequentialOptions`.
    """

    layer: ConvBN
    inputs: Sequence[Tensor]
    target: Sequence[Tensor]
    other: Sequence[Tensor] | None
    relu: bool
    chosen: Sequence[Tensor]
    ridge: float

    def solve(self, relu_aware: int) -> None:
        """Set the layer's weights to the solution.

        Args:
            relu_aware: how often targets below zero are replaced by the current output's negative
                part, where a ReLU follows.
        """
        layer = self.layer
        rows = self._join(layer.reader.rows, self.inputs)
        wanted = self._join(layer.rows_of_output, self.target)
        there = None if self.other is None else self._join(layer.rows_of_output, self.other)
        prior = layer.matrix()
        size = rows.shape[1] if layer.intercept else rows.shape[1] - 1
        moments = gram(rows) / len(rows)
        strength = ridge_strength(self.ridge, rows.shape[1], len(rows))
        ridge = ridge_of(moments, strength)[:size]
        moments = moments[:size, :size]
        fixed = 0.0 if layer.intercept else prior[:, -1].to(rows.dtype)
        matrix = prior
        for attempt in range(1 + (relu_aware if self.relu else 0)):
            goal = wanted
            if self.relu and attempt:
                output = rows @ matrix.to(rows.dtype).T
                if there is not None:
                    output += there
                goal = torch.where(wanted > 0, wanted, output.clamp_(max=0))
            if there is not None:
                goal = goal - there
            cross = gram(goal - fixed, rows)[:, :size] / len(rows)
            solution = solve_ridge(moments, cross, prior[:, :size], ridge)
            matrix = torch.cat([solution, prior[:, size:]], dim=1)
        layer.set(matrix)

    def _join(self, read, values: Sequence[Tensor]) -> Tensor:  # type: ignore[no-untyped-def]
        return torch.cat([read(v, c) for v, c in zip(values, self.chosen, strict=True)])


def sample(chunks: Sequence[Tensor], layer: ConvBN, rows: int, seed: int) -> list[Tensor]:
    """Sample output positions of a layer for every chunk of its inputs, at most ``rows`` in all."""
    generator = torch.Generator().manual_seed(seed)
    images = sum(len(chunk) for chunk in chunks)
    per_image = max(1, rows // images)
    available = layer.reader.positions(chunks[0])
    return [
        choose_positions(len(chunk), available, per_image, generator).to(chunk.device)
        for chunk in chunks
    ]
