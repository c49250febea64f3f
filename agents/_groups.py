"""What observations say of the groups of channels: inputs, budget, sensitivity curve.

Everything here is differentiable in the keep ratios.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
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

    def __getitem__(self, index: Tensor) -> "Groups":
        """Return the observations at an index, in the index's shape."""
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
            low = torch.full_like(logits[..., :1], -12.0)
            high = torch.full_like(low, 12.0)
            for _ in range(24):
                shift = (low + high) / 2
                above = (self.gain * torch.sigmoid(logits + shift)).sum(-1, keepdim=True) > target
                low, high = torch.where(above, low, shift), torch.where(above, shift, high)
        keep = torch.sigmoid(logits + shift)
        spent = (self.gain * keep).sum(-1, keepdim=True)
        slope = (self.gain * keep * (1 - keep)).sum(-1, keepdim=True).detach() + 1e-6
        # Zero, with the gradient of the shift by the implicit function theorem.
        correction = -(spent - spent.detach()) / slope
        return torch.sigmoid(logits + shift + correction)

    def error_at(self, keep: Tensor) -> Tensor:
        """Return the sensitivity curve at keep ratios, linear between its points."""
        error = torch.zeros_like(keep)
        for index, (high, low) in enumerate(pairwise(POINTS)):
            part = ((high - keep) / (high - low)).clamp(0, 1)
            error = error + part * (self.errors[..., index + 1] - self.errors[..., index])
        return error


def logits_of(keep: Tensor, view: View) -> Tensor:
    """Return logits of keep ratios, clipped."""
    return keep.clamp(view.keep_clip, 1 - view.keep_clip).logit()
