"""Allocation by measured sensitivities, and cross-entropy search around it.

The first strategy tried is :func:`lfgcl_env.pruning.allocate`'s, which takes one evaluation per
group; whatever evaluations are left are spent searching near it.
"""

from typing import Any

import gymnasium as gym
import numpy as np

from agents.cross_entropy import Action, CrossEntropyAgent
from lfgcl_env.pruning import allocate

_SPREAD = 0.35  # of logits around the allocated strategy


def make(env: gym.Env[Any, Action], seed: int) -> CrossEntropyAgent:
    """Make the agent, see ``lfgcl_env.agent.AgentFactory``."""
    problem = env.unwrapped.problem  # type: ignore[attr-defined]
    ratios = np.clip(allocate(problem) / problem.channels, 0.02, 0.98)
    return CrossEntropyAgent(env, seed, np.log(ratios / (1.0 - ratios)), _SPREAD)
