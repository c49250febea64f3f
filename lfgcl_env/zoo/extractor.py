"""A features extractor for Stable-Baselines3 that reads an observation as a sequence of groups."""

import math
from typing import Any, cast

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lfgcl_env.envs.embedding import FEATURES

try:
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
except ImportError as error:
    raise ImportError(
        "LayerwiseExtractor needs Stable-Baselines3: run `pip install lfgcl-env[sb3]`"
    ) from error


class LayerwiseExtractor(BaseFeaturesExtractor):
    """Features of every group, computed with the same weights from its row and the other rows.

    Every row of the observation becomes a vector of ``width`` numbers, to which a code of its
    position is added. One pre-norm block of self-attention then mixes the rows (Vaswani et al.,
    Attention is all you need, 2017; Xiong et al., On layer normalization in the transformer
    architecture, 2020). The features are ``per_group`` numbers
    of every group, in order, so that the actor's layers can distinguish the groups, and the mean
    over all groups. No weight depends on the number of groups.

    Args:
        observation_space: of an environment of this package, (groups, features), or that after
            Gymnasium's ``FlattenObservation``.
        width: numbers per group within.
        heads: of the attention; they share ``width`` evenly.
        per_group: features of every group.

    Raises:
        ValueError: if the space is not one of these, or ``heads`` does not divide ``width``.

    >>> space = gym.spaces.Box(-1, 1, (9, 22))
    >>> LayerwiseExtractor(space, width=16, per_group=4)(torch.zeros(5, 9, 22)).shape
    torch.Size([5, 52])
    """

    def __init__(
        self,
        observation_space: gym.spaces.Box,
        width: int = 32,
        heads: int = 2,
        per_group: int = 8,
    ) -> None:
        groups = _groups(observation_space)
        if width % (2 * heads):
            raise ValueError(
                f"width must be a multiple of twice the {heads} heads, got {width}: "
                f"try {max(1, round(width / (2 * heads))) * 2 * heads}"
            )
        super().__init__(observation_space, groups * per_group + width)
        self._groups, self._heads = groups, heads
        self.embed = nn.Linear(len(FEATURES), width)
        self.register_buffer("position", position_code(groups, width), persistent=False)
        self.before_attention = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.before_transition = nn.LayerNorm(width)
        self.transition = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )
        self.after = nn.LayerNorm(width)
        self.to_features = nn.Linear(width, per_group)

    def forward(self, observations: Tensor) -> Tensor:
        """Return features; (batch, groups * per_group + width).

        Args:
            observations: (batch, groups, features) or (batch, groups * features).
        """
        rows = observations.reshape(-1, self._groups, len(FEATURES))
        hidden = self.embed(rows) + cast(Tensor, self.position)
        hidden = hidden + self._attention(self.before_attention(hidden))
        hidden = hidden + self.transition(self.before_transition(hidden))
        hidden = self.after(hidden)
        per_group = torch.tanh(self.to_features(hidden))
        return torch.cat([per_group.flatten(1), hidden.mean(1)], dim=1)

    def _attention(self, hidden: Tensor) -> Tensor:
        batch, groups, width = hidden.shape
        split = self.queries_keys_values(hidden).view(batch, groups, 3, self._heads, -1)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        return cast(Tensor, self.mix(mixed.transpose(1, 2).reshape(batch, groups, width)))


def position_code(groups: int, width: int) -> Tensor:
    """Sines and cosines of every group's depth, counted from 0 (first) to 1 (last).

    Vaswani et al. (2017) code absolute positions; depths mean the same in networks of every
    length, so that an agent can be transferred to another network.

    Args:
        groups: number of groups.
        width: an even number of entries per group.

    Returns:
        float32, (groups, width): sines of ``width / 2`` frequencies, then their cosines.

    >>> position_code(3, 4)[:, :2].round().abs().tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
    """
    depth = torch.linspace(0, 1, groups).unsqueeze(1)
    frequencies = math.pi * torch.arange(1, width // 2 + 1)
    return torch.cat([torch.sin(depth * frequencies), torch.cos(depth * frequencies)], dim=1)


def _groups(space: gym.spaces.Space[Any]) -> int:
    """Number of groups in an observation, or ValueError."""
    shape: tuple[int, ...] = space.shape or ()
    entries = math.prod(shape)
    flat_or_rows = len(shape) == 1 or (len(shape) == 2 and shape[1] == len(FEATURES))
    if not flat_or_rows or entries == 0 or entries % len(FEATURES):
        raise ValueError(
            f"LayerwiseExtractor reads observations of shape (groups, {len(FEATURES)}), or the "
            f"same flattened, got {shape or space}"
        )
    return entries // len(FEATURES)
