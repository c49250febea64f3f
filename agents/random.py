"""Random search: the control for every other agent, and the smallest example of an agent."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from lfgcl_env.envs.together import begin_ahead, room_ahead
from lfgcl_env.search.return_so_far import ReturnSoFar

Action = NDArray[np.float32]


class RandomAgent:
    """Draw prune ratios uniformly and independently, and keep those with the highest reward.

    Args:
        env: an environment whose actions are prune ratios.
        seed: decides every draw.
    """

    def __init__(self, env: gym.Env[Any, Action], seed: int) -> None:
        assert isinstance(env.action_space, gym.spaces.Box)
        self.env = ReturnSoFar(env)
        self.seed = seed
        self._space = env.action_space
        self._draws = np.random.default_rng(seed)
        self._best: tuple[float, Action] = (-np.inf, self._draw())

    def learn(
        self,
        total_timesteps: int,
        callback: Callable[[dict[str, Any], dict[str, Any]], bool] | None = None,
    ) -> "RandomAgent":
        """Step the environment until ``callback`` returns False, at most ``total_timesteps`` times.

        Args:
            total_timesteps: most steps.
            callback: called after every step with the local and the global variables.
        """
        self.env.reset(seed=self.seed)
        drawn: list[Action] = []
        for left in range(total_timesteps, 0, -1):
            room = min(room_ahead(self.env, len(drawn)), left - len(drawn))
            drawn += [self._draw() for _ in range(room)]
            begin_ahead(self.env, drawn, room)
            action = drawn.pop(0)
            _, reward, terminated, truncated, info = self.env.step(action)
            if reward > self._best[0]:
                self._best = (reward, action)
            if terminated or truncated:
                # Those that were scored ahead are of this budget.
                self.env.reset(options={"budget": info["budget"]} if drawn else None)
            if callback is not None and not callback(locals(), globals()):
                break
        return self

    def predict(self, observation: Any, **_: Any) -> tuple[Action, None]:
        """Return the best action so far (a draw before the first step), and no state."""
        return self._best[1], None

    def _draw(self) -> Action:
        low, high = self._space.low, self._space.high
        return self._draws.uniform(low, high).astype(np.float32)


def make(env: gym.Env[Any, Action], seed: int) -> RandomAgent:
    """Make the agent, see ``lfgcl_env.search.protocol.AgentFactory``."""
    return RandomAgent(env, seed)
