"""Allocation by measured sensitivities, and cross-entropy search around it.

The first strategy tried is :meth:`PruningProblem.allocate`'s, which takes one evaluation per group;
whatever evaluations are left are spent searching near it.
"""

from typing import Any

import gymnasium as gym
import numpy as np

from agents.cross_entropy import Action, CrossEntropyAgent

_SPREAD = 0.35  # of logits around the allocated strategy


def make(env: gym.Env[Any, Action], seed: int) -> CrossEntropyAgent:
    """Make the agent, see ``lfgcl_env.agent.AgentFactory``."""
    problem = env.unwrapped.problem  # type: ignore[attr-defined]
    ratios = np.clip(problem.allocate() / problem.channels, 0.02, 0.98)
    return CrossEntropyAgent(env, seed, np.log(ratios / (1.0 - ratios)), _SPREAD)
