"""TPE: candidates drawn where good strategies are dense and bad ones are not.

Source: Bergstra et al., Algorithms for Hyper-Parameter Optimization (NeurIPS 2011), section 4, as
implemented by optuna, multivariate (Falkner et al., BOHB, ICML 2018). Uniform ratios come first.
"""

from typing import Any

import gymnasium as gym
import numpy as np

from agents._optuna import OptunaSearch
from agents._search import Action, Logits, SearchAgent, from_uniform


def begin(start: Logits, draws: np.random.Generator) -> OptunaSearch:
    """Make the search, see :class:`~agents._search.Search`."""
    return OptunaSearch(start, draws, "TPESampler", multivariate=True)


def make(env: gym.Env[Any, Action], seed: int) -> SearchAgent:
    """Make the agent, see ``lfgcl_env.agent.AgentFactory``."""
    return from_uniform(begin, env, seed)
