"""One layer's least-squares problem inside sequential repair."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lfgcl_env.pruning.moments.patches import gram_with_one
from lfgcl_env.pruning.moments.second_moments import ridge_of, ridge_strength
from lfgcl_env.pruning.repair.conv_bn import ConvBN


class Fit:
    """A layer's inputs and targets at sampled positions, and the map between them that fits best.

    Args:
        layer: the layer with its BatchNorm; its weights are changed by :meth:`solve`.
        wanted: the baseline's values at the layer's point, for the channels that stay;
            (rows, channels).
        there: values of the other operand of the addition at that point in the pruned network, or
            None; (rows, channels).
        relu: whether a ReLU follows the point, so that all targets below zero mean the same.
        ridge: see :class:`~lfgcl_env.pruning.repair.sequential.SequentialOptions`.

    Attributes:
        patches: the layer's inputs; (rows, features).
        moments: E[a a^T] of these rows a with a constant 1 last; float64, (features + 1, ...).
    """

    def __init__(
        self, layer: ConvBN, wanted: Tensor, there: Tensor | None, *, relu: bool, ridge: float
    ) -> None:
        self.layer, self.relu = layer, relu
        self._wanted, self._there, self._ridge = wanted, there, ridge
        self.patches: Tensor
        self.moments: Tensor

    def read(self, inputs: Sequence[Tensor], chosen: Sequence[Tensor]) -> None:
        """Take the layer's input patches at chosen positions, and their moments.

        Args:
            inputs: chunks of the layer's inputs in the pruned network; the first ones alone are
                enough, and then :meth:`solve` goes by them alone.
            chosen: output positions of every chunk; int64, (images, positions).
        """
        self.patches = self.layer.reader.patches(inputs, chosen)
        self.moments = gram_with_one(self.patches) / len(self.patches)

    def solve(self, relu_aware: int) -> None:
        """Set the layer's weights to the solution.

        Args:
            relu_aware: how often targets below zero are replaced by the current output's negative
                part, where a ReLU follows.
        """
        patches, layer = self.patches, self.layer
        count, features = patches.shape
        wanted = self._wanted[:count]
        there = None if self._there is None else self._there[:count]
        prior = layer.matrix()
        size = features + 1 if layer.intercept else features
        strength = ridge_strength(self._ridge, features + 1, count)
        ridge = ridge_of(self.moments, strength)[:size]
        factor = factorise(self.moments[:size, :size], ridge)
        fixed = 0.0 if layer.intercept else prior[:, -1].to(patches.dtype)
        matrix = prior
        if self.relu and relu_aware:
            below, above = wanted.le(0).to(wanted.dtype), wanted.relu()
        for attempt in range(1 + (relu_aware if self.relu else 0)):
            goal = wanted
            if self.relu and attempt:
                narrow = matrix.to(patches.dtype)
                output = torch.addmm(narrow[:, -1], patches, narrow[:, :-1].T)
                if there is not None:
                    output += there
                # Where the target is positive, it stays; a where() takes three times as long.
                goal = output.clamp_(max=0).mul_(below).add_(above)
            if there is not None:
                goal = goal - there
            cross = gram_with_one(patches, goal - fixed).T[:, :size] / count
            solution = torch.cholesky_solve((cross + prior[:, :size] * ridge).T, factor).T
            if not bool(torch.isfinite(solution).all()):
                return
            matrix = torch.cat([solution, prior[:, size:]], dim=1)
        layer.set(matrix)


def factorise(moments: Tensor, ridge: Tensor) -> Tensor:
    """Return the Cholesky factor of moments with a ridge, raised tenfold until there is one.

    Args:
        moments: (features, features).
        ridge: one positive number per feature.
    """
    for _ in range(12):
        factor, failed = torch.linalg.cholesky_ex(moments + torch.diag(ridge))
        if not int(failed):
            break
        ridge = ridge * 10
    return factor
