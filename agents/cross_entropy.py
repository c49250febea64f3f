"""Cross-entropy search: a Gaussian over keep ratios, moved to the best of each generation.

Source: Rubinstein and Kroese, The Cross-Entropy Method (2004), with smoothed updates. Elites are
centred before they are averaged, because the projection onto the budget shifts them all. What
differs: once a whole generation was visited before, the spread starts anew around the mean, each
time twice as wide as before. Where the environment has cheap scores, every member of a generation
is the best of several draws by them.
"""

from typing import Any

import gymnasium as gym
import numpy as np

from ._ask_tell import LIMIT, Action, AskTell, AskTellAgent, Logits, from_uniform

POPULATION = 20
ELITES = 5
SMOOTHING = 0.7  # weight of the new generation
SPREAD = 1.0  # standard deviation of logits at the start
LOWEST_SPREAD = 0.02  # added in every update, against premature convergence


class CrossEntropy(AskTell):
    """Draw generations of strategies around the best of the one before.

    Args:
        start: see :class:`~lfgcl_env.agents._ask_tell.AskTell`.
        draws: see :class:`~lfgcl_env.agents._ask_tell.AskTell`.
        spread: standard deviation of logits at the start.
    """

    def __init__(self, start: Logits, draws: np.random.Generator, spread: float = SPREAD) -> None:
        super().__init__(start, draws)
        self._mean = start.copy()
        self._start_spread = spread
        self._spread = np.full(start.shape, spread)
        self._generation: list[tuple[float, Logits]] = []
        self._asked = 0  # strategies of this generation
        self._begun = False
        self._new = 0  # strategies of this generation that were not visited before

    def ask(self) -> Logits:
        """Return a draw from the Gaussian; at first its mean."""
        self._asked += 1
        if self._begun:
            return self.promote(self._draw)
        self._begun = True
        self.draws.standard_normal(self._mean.shape)  # so that draws do not depend on the start
        return np.clip(self._mean, -LIMIT, LIMIT)

    def can_ask(self) -> bool:
        """Whether some of this generation are left to ask."""
        return self._asked < POPULATION

    def _draw(self) -> Logits:
        noise = self.draws.standard_normal(self._mean.shape)
        return np.clip(self._mean + self._spread * noise, -LIMIT, LIMIT)

    def tell(self, logits: Logits, reward: float, known: bool) -> None:
        """Update the Gaussian after the last of the generation."""
        self._generation.append((reward, logits))
        self._new += not known
        if len(self._generation) < POPULATION:
            return
        self._generation.sort(key=lambda scored: -scored[0])
        elites = np.stack([logits - logits.mean() for _, logits in self._generation[:ELITES]])
        self._mean += SMOOTHING * (elites.mean(axis=0) - self._mean)
        self._spread += SMOOTHING * (elites.std(axis=0) + LOWEST_SPREAD - self._spread)
        if self._new == 0:
            self._spread[:] = self._start_spread
            self._start_spread = min(2 * self._start_spread, LIMIT)
        self._generation, self._asked, self._new = [], 0, 0


def make(env: gym.Env[Any, Action], seed: int) -> AskTellAgent:
    """Make the agent, see ``lfgcl_env.search.protocol.AgentFactory``."""
    return from_uniform(CrossEntropy, env, seed)
