r"""Stable-Baselines3 on these environments: its settings as rl_zoo3 reads them, and its agents.

The settings suit few, expensive, one-step episodes. They are the YAML files in ``hyperparams``;
with rl_zoo3 itself (``PATH`` is what :func:`path` returns)::

    python -m rl_zoo3.train --algo ddpg --env LFGCL-ResNet56-v0 --gym-packages lfgcl_env \
        --conf-file PATH
"""

from typing import TYPE_CHECKING, Any

from lfgcl_env.zoo.logit_action import LogitAction
from lfgcl_env.zoo.sb3 import check_installed, make
from lfgcl_env.zoo.settings import ALGORITHMS, path, settings

if TYPE_CHECKING:
    from lfgcl_env.zoo.extractor import LayerwiseExtractor

__all__ = [
    "ALGORITHMS",
    "LayerwiseExtractor",
    "LogitAction",
    "check_installed",
    "make",
    "path",
    "settings",
]


def __getattr__(name: str) -> Any:
    """Import what needs Stable-Baselines3 when it is asked for."""
    if name == "LayerwiseExtractor":
        from lfgcl_env.zoo.extractor import LayerwiseExtractor

        return LayerwiseExtractor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
