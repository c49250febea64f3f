"""A vector environment of Stable-Baselines3 whose strategies workers score together."""

from functools import partial
from typing import Any

import gymnasium as gym

from lfgcl_env.edge.bounds import POSITIVE, Positive
from lfgcl_env.edge.schema import check_value
from lfgcl_env.envs.together import score_ahead, twins

try:
    from stable_baselines3.common.vec_env import DummyVecEnv
except ImportError as error:
    raise ImportError(
        "TogetherVecEnv needs Stable-Baselines3: run `pip install lfgcl-env[sb3]`"
    ) from error


class TogetherVecEnv(DummyVecEnv):
    """Stable-Baselines3's ``DummyVecEnv`` on one problem, whose every step is scored together.

    Args:
        env: an environment of this package, wrapped or not, such as
            ``gym.make("LFGCL-ResNet56-v0", workers=4)``. It and copies of it that share its problem
            and workers are what is stepped.
        num_envs: how many; None for as many as it has workers.

    Raises:
        ValueError: if ``num_envs`` is no positive whole number.

    >>> import gymnasium as gym, lfgcl_env
    >>> env = gym.make("LFGCL-ResNet20-v0", weights="random", images="random", num_images=4)
    >>> envs = TogetherVecEnv(env, 3)
    >>> envs.reset().shape
    (3, 9, 22)
    """

    def __init__(self, env: gym.Env[Any, Any], num_envs: int | None = None) -> None:
        own: Any = env.unwrapped
        count = own.workers if num_envs is None else num_envs
        check_value(count, Positive, "num_envs", POSITIVE)
        super().__init__([partial(_itself, one) for one in twins(env, count)])

    def step_wait(self) -> Any:
        """Score what the actions lead to, together, and step every environment."""
        score_ahead(self.envs, self.actions)
        return super().step_wait()


def _itself(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    return env
