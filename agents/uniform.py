"""Uniform ratios: every group loses the same fraction of its channels.

The control that takes no search: one strategy, after which the learning ends.
"""

from typing import Any

import gymnasium as gym

from ._ask_tell import Action, AskTell, AskTellAgent, Logits, from_uniform


class Uniform(AskTell):
    """Propose the start, once."""

    _asked = False

    def ask(self) -> Logits | None:
        """Return the start; then None."""
        self._asked, asked = True, self._asked
        return None if asked else self.start

    def tell(self, logits: Logits, reward: float, known: bool) -> None:
        """Do nothing."""


def make(env: gym.Env[Any, Action], seed: int) -> AskTellAgent:
    """Make the agent, see ``lfgcl_env.search.protocol.AgentFactory``."""
    return from_uniform(Uniform, env, seed, screened=False)
