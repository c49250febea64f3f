"""Bayesian optimisation: a Gaussian process fitted to all strategies and rewards so far.

Source: Snoek, Larochelle and Adams, Practical Bayesian Optimization (NeurIPS 2012), as implemented
by optuna: Matern-5/2 kernel with a length scale per group, logarithm of the expected improvement
(Ament et al., NeurIPS 2023). Uniform ratios come first.
"""

from typing import Any

import gymnasium as gym
import numpy as np

from ._ask_tell import Action, AskTellAgent, Logits, from_uniform
from ._optuna import OptunaSearch


def begin(start: Logits, draws: np.random.Generator) -> OptunaSearch:
    """Make the search, see :class:`~lfgcl_env.agents._ask_tell.AskTell`."""
    return OptunaSearch(start, draws, "GPSampler")


def make(env: gym.Env[Any, Action], seed: int) -> AskTellAgent:
    """Make the agent, see ``lfgcl_env.search.protocol.AgentFactory``."""
    return from_uniform(begin, env, seed, screened=False)  # its proposals are much the same
