r"""Stable-Baselines3 on these environments: its settings as rl_zoo3 reads them, and its agents.

The settings suit few, expensive, one-step episodes. They are the YAML files in ``hyperparams``,
each with a comment on how it was chosen. They are used by ``lfgcl prune --agent ddpg``, by
:func:`make`, and by rl_zoo3 itself (``pip install rl_zoo3``)::

    python -m rl_zoo3.train --algo ddpg --env LFGCL-ResNet20-v0 --gym-packages lfgcl_env \
        --conf-file "$(python -c "from lfgcl_env import zoo; print(zoo.path('ddpg'))")"

In Stable-Baselines3's own terms, their essential parts are a wrapper and an extractor:

>>> import gymnasium as gym
>>> import stable_baselines3 as sb3
>>> import lfgcl_env
>>> from lfgcl_env import zoo
>>> env = gym.make("LFGCL-ResNet20-v0", weights="random", images="random", num_images=4)
>>> env = zoo.LogitAction(gym.wrappers.FlattenObservation(env), scale=2)
>>> kwargs = {"net_arch": [128, 128], "features_extractor_class": zoo.LayerwiseExtractor}
>>> agent = sb3.DDPG("MlpPolicy", env, policy_kwargs=kwargs, learning_starts=5, device="cpu")
>>> agent.learn(7).num_timesteps
7
"""

from typing import TYPE_CHECKING

from lfgcl_env.edge.imported_later import imported_later
from lfgcl_env.zoo.logit_action import LogitAction
from lfgcl_env.zoo.sb3 import check_installed, make
from lfgcl_env.zoo.settings import ALGORITHMS, path, settings

if TYPE_CHECKING:
    from lfgcl_env.zoo.extractor import LayerwiseExtractor
    from lfgcl_env.zoo.vec_env import TogetherVecEnv

__all__ = [
    "ALGORITHMS",
    "LayerwiseExtractor",
    "LogitAction",
    "TogetherVecEnv",
    "check_installed",
    "make",
    "path",
    "settings",
]


__getattr__ = imported_later(  # of what needs Stable-Baselines3
    __name__,
    {
        "LayerwiseExtractor": "lfgcl_env.zoo.extractor",
        "TogetherVecEnv": "lfgcl_env.zoo.vec_env",
    },
)
