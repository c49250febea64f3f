"""Least squares with a pull towards the current weights, by whichever of two ways is smaller.

The weights W minimise the mean over rows a of |t - W a|^2, plus ridge |W - prior|^2. With more rows
than features they come from the features' moments; with fewer, from the products of rows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lfgcl_env.pruning.moments.patches import gram_with_one
from lfgcl_env.pruning.moments.second_moments import ridge_of


@dataclass(frozen=True)
class Rows:
    """What a layer is fitted to.

    Attributes:
        patches: its inputs; (rows, features).
        wanted: the values at its point; (rows, channels).
        there: of them what the other operand of an addition gives, or None; (rows, channels).
    """

    patches: Tensor
    wanted: Tensor
    there: Tensor | None

    def pick(self, which: Tensor) -> "Rows":
        """Return some of the rows; bool, (rows,)."""
        there = None if self.there is None else self.there[which]
        return Rows(self.patches[which], self.wanted[which], there)

    def output(self, matrix: Tensor) -> Tensor:
        """Return what a map gives at the layer's point; (rows, channels)."""
        narrow = matrix.to(self.patches.dtype)
        output = torch.addmm(narrow[:, -1], self.patches, narrow[:, :-1].T)
        if self.there is not None:
            output += self.there
        return output


class ByMoments:
    """Solves by the features' moments: a factor of (features + 1) squared.

    Args:
        patches: (rows, features).
        moments: E[a a^T] of them with a constant 1 last; float64, (features + 1, ...).
        strength: of the ridge, relative to the mean second moment of a feature.
        intercept: whether the constant may change.
    """

    def __init__(self, patches: Tensor, moments: Tensor, strength: float, intercept: bool) -> None:
        self._patches, self._intercept = patches, intercept
        self._size = len(moments) if intercept else len(moments) - 1
        self._ridge = ridge_of(moments, strength)[: self._size]
        self._factor = factorise(moments[: self._size, : self._size], self._ridge)

    def __call__(self, goal: Tensor, prior: Tensor) -> Tensor:
        """Return the best map; float64, (channels, features + 1).

        Args:
            goal: what it is to give; (rows, channels).
            prior: the current map; float64.
        """
        size = self._size
        fixed = 0.0 if self._intercept else prior[:, -1].to(goal.dtype)
        cross = gram_with_one(self._patches, goal - fixed).T[:, :size] / len(goal)
        solved = torch.cholesky_solve((cross + prior[:, :size] * self._ridge).T, self._factor).T
        return torch.cat([solved, prior[:, size:]], dim=1)


class ByRows:
    """Solves by the products of rows: a factor of rows squared; see :class:`ByMoments`."""

    def __init__(self, patches: Tensor, strength: float, intercept: bool) -> None:
        self._intercept = intercept
        self._patches = patches
        self._mean = patches.mean(0) if intercept else patches.new_zeros(patches.shape[1])
        self._centred = patches - self._mean
        ridge = strength * float(patches.square().mean()) + 1e-12
        products = (self._centred @ self._centred.T).double()
        self._factor = factorise(products, torch.full_like(products[0], ridge * len(patches)))

    def __call__(self, goal: Tensor, prior: Tensor) -> Tensor:
        """Return the best map; float64, (channels, features + 1)."""
        narrow = prior.to(goal.dtype)
        left = goal - torch.addmm(narrow[:, -1], self._patches, narrow[:, :-1].T)
        constant = prior[:, -1]
        if self._intercept:
            offset = left.mean(0)
            left, constant = left - offset, constant + offset.double()
        solved = torch.cholesky_solve(left.double(), self._factor).to(goal.dtype)
        step = (solved.T @ self._centred).double()
        if self._intercept:
            constant = constant - step @ self._mean.double()
        return torch.cat([prior[:, :-1] + step, constant[:, None]], dim=1)


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
