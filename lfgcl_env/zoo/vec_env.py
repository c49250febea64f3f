"""A vector environment of Stable-Baselines3 whose strategies workers score together."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium as gym

from lfgcl_env.edge.bounds import POSITIVE, Positive
from lfgcl_env.edge.schema import check_value, short
from lfgcl_env.envs.pruning_env import PruningEnv
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
            and workers are what is stepped. Or functions, as ``make_vec_env(...,
            vec_env_cls=TogetherVecEnv)`` passes them: the first makes the environment, and there
            is a copy for each of the others.
        num_envs: how many; None for as many as it has workers, or as there are functions.

    Raises:
        ValueError: if ``num_envs`` is no positive whole number, there is no function, or the
            environment is of another package.

    >>> import gymnasium as gym, lfgcl_env
    >>> env = gym.make("LFGCL-ResNet20-v0", weights="random", images="random", num_images=4)
    >>> envs = TogetherVecEnv(env, 3)
    >>> envs.reset().shape
    (3, 9, 22)
    """

    def __init__(
        self,
        env: gym.Env[Any, Any] | Sequence[Callable[[], gym.Env[Any, Any]]],
        num_envs: int | None = None,
    ) -> None:
        many = None
        if isinstance(env, Sequence):
            many = check_value(len(env), Positive, "the number of functions", POSITIVE)
            env = env[0]()
        own: Any = getattr(env, "unwrapped", None)
        if not isinstance(own, PruningEnv):
            raise ValueError(
                "TogetherVecEnv steps environments of lfgcl_env, see `lfgcl list`, got "
                f"{short(env)}: DummyVecEnv steps others"
            )
        count = (many or own.workers) if num_envs is None else num_envs
        check_value(count, Positive, "num_envs", POSITIVE)
        super().__init__([partial(_itself, one) for one in twins(env, count)])

    def step_wait(self) -> Any:
        """Score what the actions lead to, together, and step every environment."""
        score_ahead(self.envs, self.actions)
        return super().step_wait()


def _itself(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    return env
