"""Bayesian optimisation: a Gaussian process fitted to all that was scored, and asked what is best.

Source: Snoek, Larochelle and Adams, Practical Bayesian Optimization (NeurIPS 2012), as implemented
by optuna: Matern-5/2 kernel with a length scale per group, logarithm of the expected improvement
(Ament et al., NeurIPS 2023). Uniform ratios come first.
"""

from typing import Any

import gymnasium as gym
import numpy as np

from agents._optuna import OptunaSearch
from agents._search import Action, Logits, SearchAgent, from_uniform


def begin(start: Logits, draws: np.random.Generator) -> OptunaSearch:
    """Make the search, see :class:`~agents._search.Search`."""
    return OptunaSearch(start, draws, "GPSampler")


def make(env: gym.Env[Any, Action], seed: int) -> SearchAgent:
    """Make the agent, see ``lfgcl_env.agent.AgentFactory``."""
    return from_uniform(begin, env, seed)
