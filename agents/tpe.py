"""TPE: candidates drawn where good strategies are dense and bad ones are not.

Source: Bergstra et al., Algorithms for Hyper-Parameter Optimization (NeurIPS 2011), section 4, as
implemented by optuna, multivariate (Falkner et al., BOHB, ICML 2018). Uniform ratios come first.
"""

import os
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from ._ask_tell import Action, AskTellAgent, Logits, from_uniform
from ._optuna import OptunaSearch, shared_study


def begin(start: Logits, draws: np.random.Generator, **shared: Any) -> OptunaSearch:
    """Make the search, see :class:`~lfgcl_env.agents._ask_tell.AskTell`."""
    return OptunaSearch(start, draws, "TPESampler", together=True, multivariate=True, **shared)


def make(
    env: gym.Env[Any, Action], seed: int, *, journal: str | os.PathLike[str] | None = None
) -> AskTellAgent:
    """Make the agent, see ``lfgcl_env.search.protocol.AgentFactory``.

    Args:
        env: an environment of this package.
        seed: decides what is drawn; each of those that share a journal needs its own.
        journal: a file by which searches of the same problem, also on other machines, know of each
            other's trials; what one finds then depends on when the others find what.
    """
    return from_uniform(partial(begin, **shared_study(env, journal)), env, seed)
