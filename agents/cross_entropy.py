"""Cross-entropy search: a Gaussian over keep ratios, moved to the best of each generation.

Source: Rubinstein and Kroese, The Cross-Entropy Method (2004), with smoothed updates. Keep ratios
are searched in logit space, where the environment's projection onto the budget is one shift of all
of them: so elites are centred before they are averaged.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

Action = NDArray[np.float32]

POPULATION = 20
ELITES = 5
SMOOTHING = 0.7  # weight of the new generation
SPREAD = 1.0  # standard deviation of logits at the start
LOWEST_SPREAD = 0.02  # added in every update, against premature convergence


class CrossEntropyAgent:
    """Draws generations of strategies around the best of the one before; begins with uniform.

    Args:
        env: an environment whose actions are prune ratios, with episodes of one step.
        seed: decides every draw.
        mean: logits of keep ratios to begin with, one per group; None for uniform ratios.
        spread: standard deviation of logits at the start.
    """

    def __init__(
        self,
        env: gym.Env[Any, Action],
        seed: int,
        mean: NDArray[np.float64] | None = None,
        spread: float = SPREAD,
    ) -> None:
        assert isinstance(env.action_space, gym.spaces.Box)
        self.env = env
        self.seed = seed
        self._draws = np.random.default_rng(seed)
        self._mean = np.zeros(env.action_space.shape) if mean is None else mean.copy()
        self._spread = np.full(env.action_space.shape, spread)
        self._best: tuple[float, Action] = (-np.inf, _ratios(self._mean))

    def learn(
        self,
        total_timesteps: int,
        callback: Callable[[dict[str, Any], dict[str, Any]], bool] | None = None,
    ) -> "CrossEntropyAgent":
        """Step the environment until ``callback`` returns False, at most ``total_timesteps`` times.

        Args:
            total_timesteps: most steps.
            callback: called after every step with the local and the global variables.
        """
        self.env.reset(seed=self.seed)
        generation: list[tuple[float, NDArray[np.float64]]] = []
        for step in range(total_timesteps):
            noise = self._draws.standard_normal(self._mean.shape)
            logits = np.clip(self._mean + self._spread * noise * (step > 0), -5, 5)
            action = _ratios(logits)
            _, _, terminated, truncated, info = self.env.step(action)
            generation.append((info["similarity"], logits))
            if info["similarity"] > self._best[0]:
                self._best = (info["similarity"], action)
            if len(generation) == POPULATION:
                self._update(generation)
                generation = []
            if terminated or truncated:
                self.env.reset()
            if callback is not None and not callback(locals(), globals()):
                break
        return self

    def predict(self, observation: Any, **_: Any) -> tuple[Action, None]:
        """Return the best action so far (uniform ratios before the first step), and no state."""
        return self._best[1], None

    def _update(self, generation: list[tuple[float, NDArray[np.float64]]]) -> None:
        generation.sort(key=lambda scored: -scored[0])
        elites = np.stack([logits - logits.mean() for _, logits in generation[:ELITES]])
        self._mean += SMOOTHING * (elites.mean(axis=0) - self._mean)
        self._spread += SMOOTHING * (elites.std(axis=0) + LOWEST_SPREAD - self._spread)


def _ratios(logits: NDArray[np.float64]) -> Action:
    """Prune ratios of logits of keep ratios."""
    return (1.0 / (1.0 + np.exp(logits))).astype(np.float32)


def make(env: gym.Env[Any, Action], seed: int) -> CrossEntropyAgent:
    """Make the agent, see ``lfgcl_env.agent.AgentFactory``."""
    return CrossEntropyAgent(env, seed)
