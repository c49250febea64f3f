"""EagleEye: random strategies, scored after BatchNorm statistics are re-estimated.

Source: Li, Wu, Su, Wang and Lin, *EagleEye: Fast Sub-net Evaluation for Efficient Neural Network
Pruning*, ECCV 2020, and its code. Prune ratios are drawn uniformly and independently; networks
more than 0.5 % of the baseline's cost off the budget are rejected without being scored. The
re-estimation is the environment's, which therefore must have ``repair="batchnorm"``.

What differs:

- the score is the environment's reward, by default without labels; theirs is the accuracy on a
  part of the training images;
- accepted candidates are projected onto the budget, so that none is above it;
- the range to draw from is not tuned by hand to network and budget ([0, 0.4], [0, 0.7] and [0, 0.8]
  for a quarter, half and three quarters off ResNet-50): its middle is the uniform ratio on the
  budget, and it is as wide as fits into [0, 1];
- statistics are re-estimated on the calibration images, theirs on 50 batches of the training set.
"""

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from lfgcl_env.pruning import PruningProblem
from lfgcl_env.search.record_evaluations import problem_of
from lfgcl_env.search.return_so_far import ReturnSoFar

from . import uniform_ratios

Action = NDArray[np.float32]

REPAIR = "batchnorm"
TOLERANCE = 0.005  # of the baseline's cost
_DRAWN = 1000  # at once


def candidates(
    problem: PruningProblem, budget: float, draws: np.random.Generator
) -> Iterator[Action]:
    """Draw prune ratios whose networks cost about the budget, without end.

    Args:
        problem: what is to be pruned.
        budget: fraction of the baseline's cost that may remain.
        draws: decides every draw.

    Yields:
        Prune ratios in [0, 1]; (groups,). The cost of the network with the nearest whole numbers of
        channels is within ``TOLERANCE`` of the budget. Where there is none such among a thousand,
        as with very few groups, it is the nearest of them.
    """
    middle = float(problem.prune_ratios(uniform_ratios.strategy(problem, budget)).mean())
    width = min(middle, 1.0 - middle)
    whole = int(problem.costs(problem.channels))
    while True:
        ratios = draws.uniform(middle - width, middle + width, (_DRAWN, len(problem.groups)))
        keep = np.rint((1.0 - ratios) * problem.channels).astype(np.int64)
        keep = np.maximum(problem.lowest, keep)
        off = np.abs(problem.costs(keep) / whole - budget)
        near = np.flatnonzero(off <= TOLERANCE)
        yield from ratios[near if len(near) else [int(off.argmin())]].astype(np.float32)


class EagleEyeAgent:
    """Try random strategies near the budget, and keep the one with the highest reward.

    Rewards on different budgets cannot be compared, so that all episodes have the first one's
    budget where the environment draws it from a range.

    Args:
        env: an environment whose actions are prune ratios, all of them at once.
        seed: decides every draw.
    """

    def __init__(self, env: gym.Env[Any, Action], seed: int) -> None:
        self.env = ReturnSoFar(env)
        self.problem = problem_of(env)
        self.seed = seed
        self._best: Action = np.full(len(self.problem.groups), 0.5, dtype=np.float32)

    def learn(
        self,
        total_timesteps: int,
        callback: Callable[[dict[str, Any], dict[str, Any]], bool] | None = None,
    ) -> "EagleEyeAgent":
        """Step the environment until ``callback`` returns False, at most ``total_timesteps`` times.

        Args:
            total_timesteps: most steps.
            callback: called after every step with the local and the global variables.
        """
        _, info = self.env.reset(seed=self.seed)
        budget, best = info["budget"], -np.inf
        drawn = candidates(self.problem, budget, np.random.default_rng(self.seed))
        for _ in range(total_timesteps):
            action = next(drawn)
            _, reward, terminated, truncated, _ = self.env.step(action)
            if reward > best:
                best, self._best = reward, action
            if callback is not None and not callback(locals(), globals()):
                break
            if terminated or truncated:
                self.env.reset(options={"budget": budget})
        return self

    def predict(self, observation: Any, **_: Any) -> tuple[Action, None]:
        """Return the best action so far (uniform ratios before the first step), and no state."""
        return self._best, None


def make(env: gym.Env[Any, Action], seed: int) -> EagleEyeAgent:
    """Make the agent, see ``lfgcl_env.search.protocol.AgentFactory``.

    Raises:
        ValueError: if the environment has another repair.
    """
    repair = problem_of(env).repair
    if repair != REPAIR:
        raise ValueError(
            f"EagleEye scores strategies after BatchNorm re-estimation and this environment has "
            f"repair={repair!r}: make it with repair={REPAIR!r}, or take the agent random"
        )
    return EagleEyeAgent(env, seed)
