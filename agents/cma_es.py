"""CMA-ES: an evolution strategy that learns which groups to change together.

Source: Hansen, The CMA Evolution Strategy: A Tutorial (2016), as implemented by the package
``cma`` with its own population size, 4 + 3 ln n. Uniform ratios are scored first. Once all of a
population would be rounded to much the same strategies, it starts again from the best one, with
twice the population (Auger and Hansen, 2005, who start anywhere; evaluations are too few for that).
Where the environment has cheap scores, a generation is the best by them of four times as many.
"""

from typing import Any

import gymnasium as gym
import numpy as np

from ._ask_tell import LIMIT, Action, AskTell, AskTellAgent, Logits, from_uniform
from ._screening import PROPOSALS

try:
    import cma
except ModuleNotFoundError as error:
    raise ImportError(
        "agent cma_es needs the package cma: run `pip install lfgcl-env[search]`"
    ) from error

SPREAD = 0.5  # standard deviation of logits at the start
LOWEST_SPREAD = 0.02  # below it a run has converged


class CMAES(AskTell):
    """Search generation by generation."""

    def __init__(self, start: Logits, draws: np.random.Generator) -> None:
        super().__init__(start, draws)
        self._best = (-np.inf, start)
        self._run: Any = None
        self._population: int | None = None
        self._asked: list[Logits] = [start]
        self._next = 0  # place of the next of these
        self._generation: list[tuple[Logits, float]] = []

    def ask(self) -> Logits:
        """Return the next of the generation, or the first of a new one."""
        if not self._asked:
            if self._run is None or self._run.stop():
                self._start()
            count = self._run.popsize
            self._asked = list(self._run.ask(self.screen and PROPOSALS * count))
            if self.screen:
                self._asked = self._promoted(count)
        self._next += 1
        return np.clip(self._asked[self._next - 1], -LIMIT, LIMIT)

    def can_ask(self) -> bool:
        """Whether some of this generation are left to ask."""
        return self._next < len(self._asked)

    def _promoted(self, count: int) -> list[Logits]:
        """Return the most promising of what was asked; without cheap scores, the first."""
        assert self.screen is not None
        proposals = np.clip(np.stack(self._asked), -LIMIT, LIMIT)
        scores = self.screen(proposals)
        order = range(count) if scores is None else np.argsort(-scores)[:count]
        return [self._asked[index] for index in order]

    def tell(self, logits: Logits, reward: float, known: bool) -> None:
        """Update the distribution after the last of the generation."""
        self._best = max(self._best, (reward, logits), key=lambda scored: scored[0])
        self._generation.append((logits, reward))
        if len(self._generation) == len(self._asked):
            if self._run is not None:
                self._run.tell(self._asked, [-reward for _, reward in self._generation])
            self._asked, self._next, self._generation = [], 0, []

    def _start(self) -> None:
        """Begin a run at the best strategy so far."""
        options = {
            "randn": lambda *shape: self.draws.standard_normal(shape),
            "seed": np.nan,  # leaves NumPy's global state alone
            "tolx": LOWEST_SPREAD,
            "verbose": -10,
        }
        if self._run is not None:
            options["popsize"] = 2 * self._run.popsize
        self._run = cma.CMAEvolutionStrategy(self._best[1], SPREAD, options)


def make(env: gym.Env[Any, Action], seed: int) -> AskTellAgent:
    """Make the agent, see ``lfgcl_env.search.protocol.AgentFactory``."""
    return from_uniform(CMAES, env, seed)
