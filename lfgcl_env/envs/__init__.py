"""Gymnasium environments on a pruning problem."""

from lfgcl_env.envs.embedding import FEATURES, Embedding
from lfgcl_env.envs.global_env import LFGCLEnv
from lfgcl_env.envs.layerwise_env import AMCEnv
from lfgcl_env.envs.vector_env import AMCVectorEnv, LFGCLVectorEnv

__all__ = ["FEATURES", "AMCEnv", "AMCVectorEnv", "Embedding", "LFGCLEnv", "LFGCLVectorEnv"]
