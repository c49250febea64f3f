"""TPE: candidates drawn where good strategies are dense and bad ones are not.

Source: Bergstra et al., Algorithms for Hyper-Parameter Optimization (NeurIPS 2011), section 4, as
implemented by optuna, multivariate (Falkner et al., BOHB, ICML 2018). Uniform ratios come first.
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
    return make_agent(env, seed, "TPESampler", journal, together=True, multivariate=True)
