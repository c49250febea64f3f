"""Bayesian optimisation: a Gaussian process fitted to all strategies and rewards so far.

Source: Snoek, Larochelle and Adams, Practical Bayesian Optimization (NeurIPS 2012), as implemented
by optuna: Matern-5/2 kernel with a length scale per group, logarithm of the expected improvement
(Ament et al., NeurIPS 2023). Uniform ratios come first.
"""

import os
from typing import Any

import gymnasium as gym

from ._ask_tell import Action, AskTellAgent
from ._optuna import make_agent


def make(
    env: gym.Env[Any, Action], seed: int, *, journal: str | os.PathLike[str] | None = None
) -> AskTellAgent:
    """Make the agent, see ``lfgcl_env.search.protocol.AgentFactory``.

    See :func:`~lfgcl_env.agents._optuna.make_agent` for ``journal``, which searches share.
    """
    # Its proposals are much the same, so that screening them brings nothing.
    return make_agent(env, seed, "GPSampler", journal, screened=False)
