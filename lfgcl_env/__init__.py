"""Network compression as a Gymnasium environment: importing it registers the ids.

>>> import gymnasium as gym, lfgcl_env
>>> "LFGCL-ResNet56-v0" in gym.registry
True
"""

from typing import TYPE_CHECKING

from lfgcl_env.edge.imported_later import imported_later
from lfgcl_env.envs.registration import register_all

if TYPE_CHECKING:
    from lfgcl_env.pruning import PruningProblem, load_pruned

__version__ = "0.1.0"
__all__ = ["PruningProblem", "__version__", "load_pruned"]

_PACKAGES = (
    "agents", "baselines", "engine", "export", "images", "latency", "leaderboard", "networks",
    "pruning", "recovery", "search", "zoo",
)  # fmt: skip

__getattr__ = imported_later(
    __name__,
    {
        **dict.fromkeys(("PruningProblem", "load_pruned"), "lfgcl_env.pruning"),
        **{name: f"{__name__}.{name}" for name in _PACKAGES},
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES})


register_all()
