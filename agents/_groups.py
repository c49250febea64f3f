"""What observations say of the groups of channels: inputs, budget, sensitivity curve.

Everything here is differentiable in the keep ratios.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from lfgcl_env.envs.embedding import FEATURES

STATIC = FEATURES.index("keep_ratio")  # the columns before it do not change
BUDGET, POSITION, GAIN = (FEATURES.index(name) for name in ("budget", "position", "gain"))
CURVE = {int(name[6:]) / 100: FEATURES.index(name) for name in FEATURES if name[:6] == "error_"}
POINTS = (1.0, *CURVE, 0.0)
"""Keep ratios at which a group's error is known: columns of the observation, and both ends."""

_STEPS = 32
"""Shifts that are compared at once where logits are moved onto a budget."""


@dataclass(frozen=True)
class View:
    """Settings of how groups are seen."""

    frequencies: int = 3  # sines and cosines of the position, so that groups can be told apart
    relative_clip: float = 3.0  # bound of columns relative to the other groups [standard dev.]
    keep_clip: float = 0.02  # keep ratios are clipped to [it, 1 - it] where logits are taken

    @property
    def inputs(self) -> int:
        """How many numbers describe a group."""
        return 2 * STATIC + len(CURVE) + 2 * self.frequencies + 1


@dataclass(frozen=True)
class Groups:
    """What observations say of the groups, as inputs of actor and critics.

    Attributes:
        inputs: static columns, as they are and relative to the network's other groups; sines and
            cosines of the position; the budget; (batch, groups, inputs).
        errors: the sensitivity curve at ``POINTS``; (batch, groups, points).
        gain: share of all MACs that removing the whole group saves; (batch, groups).
        budget: (batch,).
        view: how they are seen.
    """

    inputs: Tensor
    errors: Tensor
    gain: Tensor
    budget: Tensor
    view: View

    @staticmethod
    def of(observations: NDArray[Any] | Tensor, view: View) -> "Groups":
        """Read one observation (groups, features), or several (batch, groups, features)."""
        seen = torch.as_tensor(observations, dtype=torch.float32)
        seen = seen if seen.dim() > 2 else seen[None]
        static, budget = seen[..., :STATIC], (seen[..., 0, BUDGET] + 1) / 2
        curve = [(seen[..., column] + 1) / 2 for column in CURVE.values()]
        ones = torch.ones_like(seen[..., 0])
        errors = torch.stack([0 * ones, *curve, ones], dim=-1)
        wide = torch.cat([static, (errors[..., 1:-1] + 1e-3).log()], dim=-1)
        relative = (wide - wide.mean(-2, keepdim=True)) / (wide.std(-2, keepdim=True) + 0.05)
        relative = relative.clamp(-view.relative_clip, view.relative_clip)
        octaves = 2.0 ** torch.arange(view.frequencies)
        turns = torch.pi * seen[..., POSITION, None] * octaves
        logit = logits_of(budget, view)[..., None, None].expand(*seen.shape[:-1], 1)
        inputs = torch.cat([static, relative, turns.sin(), turns.cos(), logit], dim=-1)
        gain = (seen[..., GAIN] + 1) / 2  # the column: halving saves at most half of all MACs
        return Groups(inputs, errors, gain, budget, view)

    @property
    def one(self) -> bool:
        """Whether this is one observation, which holds for a whole batch."""
        return len(self.inputs) == 1

    def __getitem__(self, index: Tensor) -> "Groups":
        """Return the observations at an index, in the index's shape; one for all stays one."""
        if self.one:
            return self
        parts = ("inputs", "errors", "gain", "budget")
        return replace(self, **{name: getattr(self, name)[index] for name in parts})

    def on_budget(self, logits: Tensor) -> Tensor:
        """Return keep ratios of logits after the common shift that meets the budget.

        Differentiable. MACs are taken to be linear in keep ratios, which they are unless two groups
        meet in a layer; the environment's own projection corrects the rest.

        Args:
            logits: (batch, groups).
        """
        whole = self.gain.sum(-1, keepdim=True)
        target = (whole - (1 - self.budget[..., None])).clamp(min=1e-3 * whole)
        with torch.no_grad():
            shift = self._shift(logits, target)
        keep = torch.sigmoid(logits + shift)
        spent = (self.gain * keep).sum(-1, keepdim=True)
        slope = (self.gain * keep * (1 - keep)).sum(-1, keepdim=True).detach() + 1e-6
        # Zero, with the gradient of the shift by the implicit function theorem.
        correction = -(spent - spent.detach()) / slope
        return torch.sigmoid(logits + shift + correction)

    def _shift(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the common shift of logits with which the gains kept sum up to a target.

        The place among equidistant shifts is found twice, the second time between two of the first;
        from there Newton's method is as exact as the numbers are.
        """
        reach, shift = 12.0, torch.zeros_like(target)
        steps = torch.linspace(-1, 1, _STEPS + 1)
        for _ in range(2):
            moved = logits[..., None] + (shift + reach * steps)[..., None, :]
            spent = (self.gain[..., None, :] @ torch.sigmoid(moved))[..., 0, :]
            below = (spent <= target).sum(-1, keepdim=True).clamp(1, _STEPS)
            reach /= _STEPS
            shift = shift + reach * (2 * below - _STEPS - 1)
        for _ in range(2):
            keep = torch.sigmoid(logits + shift)
            slope = (self.gain * keep * (1 - keep)).sum(-1, keepdim=True) + 1e-6
            excess = (self.gain * keep).sum(-1, keepdim=True) - target
            shift = shift - (excess / slope).clamp(-reach, reach)
        return shift

    def error_at(self, keep: Tensor) -> Tensor:
        """Return the sensitivity curve at keep ratios, linear between its points."""
        points = keep.new_tensor(POINTS)
        part = ((points[:-1] - keep[..., None]) / (points[:-1] - points[1:])).clamp(0, 1)
        return (part * self.errors.diff(dim=-1)).sum(-1)

    def describe(self, keep: Tensor) -> Tensor:
        """Return what critics see of keep ratios, scaled to about [-1, 1]; (..., groups, 4).

        The last number is the share of MACs that is saved in the group.
        """
        logits, error = logits_of(keep, self.view), self.error_at(keep)
        parts = [2 * keep - 1, logits / 2, 4 * error, 4 * self.gain * (1 - keep)]
        return torch.stack(parts, dim=-1)


def logits_of(keep: Tensor, view: View) -> Tensor:
    """Return logits of keep ratios, clipped."""
    return keep.clamp(view.keep_clip, 1 - view.keep_clip).logit()
