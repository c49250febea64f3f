"""Gymnasium environments on a pruning problem."""

from lfgcl_env.envs.embedding import FEATURES, Embedding
from lfgcl_env.envs.global_env import LFGCLEnv

__all__ = ["FEATURES", "Embedding", "LFGCLEnv"]
