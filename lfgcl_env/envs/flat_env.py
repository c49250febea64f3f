"""The global environment with flat observations, for scripts whose networks take vectors."""

from math import prod
from typing import Unpack

import gymnasium as gym
import numpy as np

from lfgcl_env.config import GlobalConfig, documented
from lfgcl_env.envs.global_env import LFGCLEnv
from lfgcl_env.envs.scoring_ahead import Observation
from lfgcl_env.pruning.registries import CHOICES


@documented(GlobalConfig, CHOICES)
class FlatLFGCLEnv(LFGCLEnv):
    """Prune a network by choosing all layers' ratios at once, from observations that are vectors.

    An observation has the rows of `LFGCLEnv`'s one after the other, for scripts whose networks take
    vectors, such as CleanRL's and RLlib's. Actions, rewards, episodes
    and info are the same: docs/environments.md describes them.

    It is an environment of its own, not a wrapped one, because Gymnasium makes vector environments
    by an entry point for ids without wrappers only.

    {arguments}

    >>> import gymnasium as gym, lfgcl_env
    >>> arguments = {"weights": "random", "images": "random", "num_images": 4}
    >>> gym.make("LFGCL-ResNet20-Flat-v0", **arguments).observation_space.shape
    (198,)
    """

    def __init__(self, **config: Unpack[GlobalConfig]) -> None:
        super().__init__(**config)
        entries = prod(self._embedding.shape)
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (entries,), np.float32)

    def _observation(self) -> Observation:
        return super()._observation().reshape(-1)
