r"""Stable-Baselines3 on these environments: its settings as rl_zoo3 reads them, and its agents.

The settings suit few, expensive, one-step episodes. They are the YAML files in ``hyperparams``;
with rl_zoo3 itself (``PATH`` is what :func:`path` returns)::

    python -m rl_zoo3.train --algo ddpg --env LFGCL-ResNet56-v0 --gym-packages lfgcl_env \
        --conf-file PATH
"""

from lfgcl_env.zoo.sb3 import check_installed, make
from lfgcl_env.zoo.settings import ALGORITHMS, path, settings

__all__ = ["ALGORITHMS", "check_installed", "make", "path", "settings"]
