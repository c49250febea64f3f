"""(1+1) evolution strategy: change the best strategy at random, keep the change if it is no worse.

Source: Hansen, Arnold and Auger, Evolution Strategies (Springer Handbook of Computational
Intelligence, 2015), algorithm 2, with the 1/5 success rule in the form given there: the step grows
by exp(4/5 / d) with every success and shrinks by exp(-1/5 / d) with every failure, d = sqrt(n + 1).
What differs: the step also grows where it led to a strategy that was visited before, the parent
among them, because strategies are whole numbers of channels and small steps are rounded away. Where
the environment has cheap scores, the best of several offspring by them is evaluated.
"""

from typing import Any

import gymnasium as gym
import numpy as np

from ._ask_tell import LIMIT, Action, AskTell, AskTellAgent, Logits, from_uniform

STEP = 0.5  # standard deviation of logits at the start


class OnePlusOne(AskTell):
    """Keep one parent and a step size."""

    def __init__(self, start: Logits, draws: np.random.Generator) -> None:
        super().__init__(start, draws)
        self._parent = start
        self._reward: float | None = None
        self._step = STEP

    def ask(self) -> Logits:
        """Return an offspring of the parent; at first the start."""
        if self._reward is None:
            return self.start
        return self.promote(self._draw)

    def can_ask(self) -> bool:
        """Whether there is a parent; several offspring asked together are of the same one."""
        return self._reward is not None

    def _draw(self) -> Logits:
        noise = self.draws.standard_normal(self.start.shape)
        return np.clip(self._parent + self._step * noise, -LIMIT, LIMIT)

    def tell(self, logits: Logits, reward: float, known: bool) -> None:
        """Replace the parent if the offspring is no worse, and adapt the step."""
        first = self._reward is None
        success = self._reward is None or reward >= self._reward
        if success:
            self._parent, self._reward = logits - logits.mean(), reward
        if not first:
            self._step *= float(np.exp(((success or known) - 0.2) / np.sqrt(len(logits) + 1)))


def make(env: gym.Env[Any, Action], seed: int) -> AskTellAgent:
    """Make the agent, see ``lfgcl_env.search.protocol.AgentFactory``."""
    return from_uniform(OnePlusOne, env, seed)
