"""The return of an episode so far, by which a search compares strategies."""

from typing import Any

import gymnasium as gym


class ReturnSoFar(gym.Wrapper[Any, Any, Any, Any]):
    """Replace every reward by the sum of the episode's rewards so far.

    With ``horizon`` above 1 the rewards of this package's environments are gains, whose sum is the
    score of the strategy at hand. A search that compares strategies compares these sums.

    Args:
        env: any environment.

    >>> import lfgcl_env
    >>> env = gym.make("LFGCL-ResNet20-v0", weights="random", images="random", num_images=4)
    >>> env = ReturnSoFar(env)
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._return = 0.0

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode, whose return is 0."""
        self._return = 0.0
        return self.env.reset(**arguments)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the environment and return the sum of rewards in place of the reward."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._return += float(reward)
        return observation, self._return, terminated, truncated, info
