"""Gymnasium environments on a pruning problem."""

from lfgcl_env.envs.embedding import FEATURES, Embedding
from lfgcl_env.envs.global_env import LFGCLEnv
from lfgcl_env.envs.layerwise_env import AMCEnv

__all__ = ["FEATURES", "AMCEnv", "Embedding", "LFGCLEnv"]
