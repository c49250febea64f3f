"""Gymnasium environments on a pruning problem."""

from typing import TYPE_CHECKING

from lfgcl_env.edge.imported_later import imported_later

if TYPE_CHECKING:
    from lfgcl_env.envs.embedding import FEATURES, Embedding
    from lfgcl_env.envs.flat_env import FlatLFGCLEnv
    from lfgcl_env.envs.global_env import LFGCLEnv
    from lfgcl_env.envs.layerwise_env import AMCEnv
    from lfgcl_env.envs.vector_env import AMCVectorEnv, FlatLFGCLVectorEnv, LFGCLVectorEnv

__all__ = [
    "FEATURES",
    "AMCEnv",
    "AMCVectorEnv",
    "Embedding",
    "FlatLFGCLEnv",
    "FlatLFGCLVectorEnv",
    "LFGCLEnv",
    "LFGCLVectorEnv",
]

__getattr__ = imported_later(
    __name__,
    {
        "FEATURES": "lfgcl_env.envs.embedding",
        "Embedding": "lfgcl_env.envs.embedding",
        "FlatLFGCLEnv": "lfgcl_env.envs.flat_env",
        "LFGCLEnv": "lfgcl_env.envs.global_env",
        "AMCEnv": "lfgcl_env.envs.layerwise_env",
        "AMCVectorEnv": "lfgcl_env.envs.vector_env",
        "FlatLFGCLVectorEnv": "lfgcl_env.envs.vector_env",
        "LFGCLVectorEnv": "lfgcl_env.envs.vector_env",
    },
)
