"""Network compression as a Gymnasium environment: importing it registers the ids.

>>> import gymnasium as gym, lfgcl_env
>>> "LFGCL-ResNet56-v0" in gym.registry
True
"""

from lfgcl_env.envs.registration import register_all
from lfgcl_env.pruning import PruningProblem, load_pruned

__version__ = "0.1.0"
__all__ = ["PruningProblem", "__version__", "load_pruned"]

register_all()
