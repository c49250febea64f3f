"""Bayesian optimisation: a Gaussian process fitted to all strategies and rewards so far.

Source: Snoek, Larochelle and Adams, Practical Bayesian Optimization (NeurIPS 2012), as implemented
by optuna: Matern-5/2 kernel with a length scale per group, logarithm of the expected improvement
(Ament et al., NeurIPS 2023). Uniform ratios come first.
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
    return OptunaSearch(start, draws, "GPSampler", **shared)


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
    return from_uniform(
        partial(begin, **shared_study(env, journal)), env, seed, screened=False
    )  # its proposals are much the same
