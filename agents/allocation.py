"""Cross-entropy search around the allocation by measured sensitivities.

The first strategy tried is that of :func:`lfgcl_env.pruning.allocate`. Its sensitivities take one
evaluation per group, of networks that are not on the budget, before the first step; cheap scores
where an evaluation is costly. They measure
similarity whatever the environment rewards: the allocation is only the start, from which the search
follows the rewards.
"""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from lfgcl_env.pruning import allocate
from lfgcl_env.pruning.sensitivities import sensitivities

from ._ask_tell import Action, AskTellAgent, Logits
from .cross_entropy import CrossEntropy

_SPREAD = 0.35  # of logits around the allocated strategy


def make(env: gym.Env[Any, Action], seed: int) -> AskTellAgent:
    """Make the agent, see ``lfgcl_env.search.protocol.AgentFactory``."""
    problem = env.unwrapped.problem  # type: ignore[attr-defined]
    weights = sensitivities(problem, engine=env.unwrapped.engine)  # type: ignore[attr-defined]

    def start(budget: float) -> Logits:
        keep = allocate(problem, budget, weights)
        # Where nothing is kept: a quarter of a channel, which rounds to none.
        lowest = np.where(keep > 0, 0.02, 0.25 / problem.channels)
        ratios = np.clip(keep / problem.channels, lowest, 0.98)
        logits: Logits = np.log(ratios / (1.0 - ratios))
        return logits

    return AskTellAgent(env, seed, partial(CrossEntropy, spread=_SPREAD), start)
