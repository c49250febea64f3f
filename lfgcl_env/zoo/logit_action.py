"""Actions in logits, around uniform ratios, for agents that act in [-1, 1]."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from lfgcl_env.edge.schema import short

Action = NDArray[np.floating[Any]]


class LogitAction(gym.ActionWrapper[Any, Action, Action]):
    """Maps actions in [-1, 1] to prune ratios by a sigmoid; 0 is a ratio of one half.

    The environment shifts the logits of all ratios together until the budget is met, so equal
    actions of every size are uniform ratios, and a difference between two actions means the same
    anywhere in the range. With ``RescaleAction`` the ends of the range, where an actor's tanh
    saturates, remove or keep whole groups; here ``scale`` limits how far ratios can differ.

    Args:
        env: an environment whose actions are prune ratios in [0, 1].
        scale: the logit of the prune ratio that action 1 asks for.

    Raises:
        ValueError: if ``scale`` is not a finite number above 0, or the actions are others.

    >>> import lfgcl_env
    >>> env = gym.make("LFGCL-ResNet20-v0", weights="random", images="random", num_images=4)
    >>> LogitAction(env, scale=2).action(np.array([-1.0, 0.0, 1.0])).round(2)
    array([0.12, 0.5 , 0.88], dtype=float32)
    """

    pure = True  # so that it is followed by those who score ahead

    def __init__(self, env: gym.Env[Any, Action], scale: float) -> None:
        super().__init__(env)
        if not (isinstance(scale, (int, float)) and math.isfinite(scale) and scale > 0):
            raise ValueError(
                f"scale must be a finite number above 0, such as 2, got {short(scale)}"
            )
        space = env.action_space
        if not isinstance(space, gym.spaces.Box) or (space.low.any() or (space.high != 1).any()):
            raise ValueError(f"LogitAction wraps actions in [0, 1], got {space}")
        self._scale = scale
        self.action_space = gym.spaces.Box(-1.0, 1.0, space.shape, np.float32)

    def action(self, action: Action) -> Action:
        """Return the prune ratios of an action; float32, same shape."""
        logits = self._scale * np.asarray(action, np.float64)
        return (1.0 / (1.0 + np.exp(-logits))).astype(np.float32)
