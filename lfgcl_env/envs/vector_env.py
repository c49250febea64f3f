"""The vector environments: several episodes on one problem, scored together."""

from typing import Any, ClassVar

from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import iterate

from lfgcl_env.edge.bounds import POSITIVE, Positive
from lfgcl_env.edge.schema import check_value
from lfgcl_env.engine import asked_engine
from lfgcl_env.envs.flat_env import FlatLFGCLEnv
from lfgcl_env.envs.global_env import LFGCLEnv
from lfgcl_env.envs.layerwise_env import AMCEnv
from lfgcl_env.envs.pruning_env import PruningEnv
from lfgcl_env.envs.together import score_ahead, twins


class PruningVectorEnv(SyncVectorEnv):
    """Environments on one problem, which workers score together at every step.

    Each is stepped, seeded and reset as Gymnasium's ``SyncVectorEnv`` does it, with its own budget,
    and returns what a single one would. Where an episode ends, the same step begins the next: the
    observation is the new episode's, and ``infos`` holds ``final_obs`` and ``final_info``.

    Args:
        num_envs: how many.
        **config: arguments of the environment. With an engine other than ``"serial"``, or an
            argument of Ray's, there are as many workers as environments, where ``workers`` is not
            given.

    Raises:
        ValueError: for a wrong argument.
    """

    single: ClassVar[type[PruningEnv]]

    def __init__(self, num_envs: int = 1, **config: Any) -> None:
        check_value(num_envs, Positive, "num_envs", POSITIVE)
        ray = (config.get(name) for name in ("ray_address", "ray_resources"))
        if asked_engine(config.get("engine"), *ray) not in (None, "serial"):
            config.setdefault("workers", num_envs)
        first: Any = self.single
        envs = twins(first(**config), num_envs)
        super().__init__(
            [lambda env=env: env for env in envs],  # type: ignore[misc]
            autoreset_mode=AutoresetMode.SAME_STEP,
        )

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Score what the actions lead to, together, and step every environment."""
        score_ahead(self.envs, iterate(self.action_space, actions))
        return super().step(actions)


class LFGCLVectorEnv(PruningVectorEnv):
    """Several :class:`~lfgcl_env.envs.LFGCLEnv`: every step is a batch of strategies.

    >>> import gymnasium as gym, lfgcl_env
    >>> arguments = {"weights": "random", "images": "random", "num_images": 4}
    >>> envs = gym.make_vec("LFGCL-ResNet20-v0", num_envs=3,
    ...                     vectorization_mode="vector_entry_point", **arguments)
    >>> envs.action_space.shape, envs.metadata["autoreset_mode"].value
    ((3, 9), 'SameStep')
    """

    single = LFGCLEnv


class FlatLFGCLVectorEnv(PruningVectorEnv):
    """Several :class:`~lfgcl_env.envs.FlatLFGCLEnv`: :class:`LFGCLVectorEnv` on vectors."""

    single = FlatLFGCLEnv


class AMCVectorEnv(PruningVectorEnv):
    """Several :class:`~lfgcl_env.envs.AMCEnv`: the last step of an episode scores a batch."""

    single = AMCEnv
