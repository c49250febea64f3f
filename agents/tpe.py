"""TPE: candidates drawn where good strategies are dense and bad ones are not.

Source: Bergstra et al., Algorithms for Hyper-Parameter Optimization (NeurIPS 2011), section 4, as
implemented by optuna, multivariate (Falkner et al., BOHB, ICML 2018). Uniform ratios come first.
"""

from typing import Any

import gymnasium as gym
import numpy as np

from ._ask_tell import Action, AskTellAgent, Logits, from_uniform
from ._optuna import OptunaSearch


def begin(start: Logits, draws: np.random.Generator) -> OptunaSearch:
    """Make the search, see :class:`~lfgcl_env.agents._ask_tell.AskTell`."""
    return OptunaSearch(start, draws, "TPESampler", together=True, multivariate=True)


def make(env: gym.Env[Any, Action], seed: int) -> AskTellAgent:
    """Make the agent, see ``lfgcl_env.search.protocol.AgentFactory``."""
    return from_uniform(begin, env, seed)
