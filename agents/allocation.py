"""Allocation by measured sensitivities, and cross-entropy search around it.

The first strategy tried is :func:`lfgcl_env.pruning.allocate`'s. The sensitivities behind it take
one evaluation per group, of networks that are not on the budget: they are made here, before the
learning, so that a search counts its own evaluations without them.
"""

from typing import Any

import gymnasium as gym
import numpy as np

from lfgcl_env.pruning import allocate
from lfgcl_env.pruning.allocation import sensitivities

from ._ask_tell import Action, AskTellAgent
from .cross_entropy import CrossEntropy

_SPREAD = 0.35  # of logits around the allocated strategy


def make(env: gym.Env[Any, Action], seed: int) -> AskTellAgent:
    """Make the agent, see ``lfgcl_env.search.protocol.AgentFactory``."""
    problem = env.unwrapped.problem  # type: ignore[attr-defined]
    weights = sensitivities(problem)

    def begin(budget: float, draws: np.random.Generator) -> CrossEntropy:
        ratios = np.clip(allocate(problem, budget, weights) / problem.channels, 0.02, 0.98)
        return CrossEntropy(np.log(ratios / (1.0 - ratios)), draws, _SPREAD)

    return AskTellAgent(env, seed, begin)
