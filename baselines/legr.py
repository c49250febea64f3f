"""LeGR: one global ranking of all channels, found by evolution, that serves every budget.

Source: Chin, Ding, Zhang and Marculescu, *Towards Efficient Model Compression via Learned Global
Ranking*, CVPR 2020, and its code. Every group has a scale and a shift that turn the squared L2
norms of its filters into scores; the lowest scores of the whole network go first. Regularised
evolution searches scales and shifts: a population of 64, of which the first 63 are drawn and the
last is the identity; then, each time, the best of 16 drawn members is mutated in a tenth of its
groups and replaces the oldest member.

What differs:

- fitness is the environment's reward, by default without labels and after its repair; theirs is the
  loss on labelled images, after some steps of fine-tuning (none in their script for ResNet-56);
- at least one group is mutated: a tenth of few groups would be none;
- the problem's criterion decides which channels stay, as for all baselines; with criterion ``"l2"``
  it is as published;
- where additions couple producers, their norms are averaged, not summed;
- steps shrink over 400 evaluations as published, and stay at their smallest afterwards.

The ranking should be searched on the lowest budget of interest, as theirs is; :func:`strategy` and
``predict`` apply it to any other.
"""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from lfgcl_env.edge.schema import read_text
from lfgcl_env.envs.embedding import observed_budget
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.search.record_evaluations import problem_of
from lfgcl_env.search.return_so_far import ReturnSoFar

from .global_threshold import Scores, keep_highest

Action = NDArray[np.float32]
Affine = NDArray[np.float64]
"""A scale and a shift per group; (groups, 2)."""

POPULATION = 64
SAMPLES = 16
GENERATIONS = 400  # over which steps shrink, to a fifth
MUTATED = 0.1  # fraction of the groups
SIGMA = 1.0  # of the logarithm of scales
SAFEGUARD = 0.1  # fraction of a group's channels that always stays


def norms(problem: PruningProblem) -> list[Scores]:
    """Squared L2 norms of every group's filters: one array (channels,) per group."""
    return [score**2 for score in problem.scores("l2", relative=False)]


def strategy(
    problem: PruningProblem, affine: Affine, budget: float | None = None
) -> NDArray[np.int64]:
    """Apply a ranking to a budget.

    Args:
        problem: what is to be pruned.
        affine: scale and shift of every group; (groups, 2).
        budget: instead of the problem's own.

    Returns:
        A strategy on the budget; int64, (groups,).

    Raises:
        ValueError: for a wrong shape, or a budget that cannot be reached.
    """
    return _apply_ranking(problem, norms(problem), affine, budget)


def _apply_ranking(
    problem: PruningProblem, norms: Sequence[Scores], affine: Affine, budget: float | None
) -> NDArray[np.int64]:
    if affine.shape != (len(problem.groups), 2):
        raise ValueError(
            f"a ranking has a scale and a shift per group, shape ({len(problem.groups)}, 2), got "
            f"shape {affine.shape}"
        )
    scores = [a * norm + b for norm, (a, b) in zip(norms, affine, strict=True)]
    return keep_highest(problem, scores, budget, fewest=SAFEGUARD)


class LeGRAgent:
    """Regularised evolution of a ranking.

    Rewards on different budgets cannot be compared, so that all episodes have the first one's
    budget where the environment draws it from a range.

    Args:
        env: an environment whose actions are prune ratios, all of them at once.
        seed: decides every draw.

    Attributes:
        affine: the ranking with the highest reward so far; the identity before the first step.
    """

    def __init__(self, env: gym.Env[Any, Action], seed: int) -> None:
        self.env = ReturnSoFar(env)
        self.problem = problem_of(env)
        self.seed = seed
        self.affine: Affine = np.tile([1.0, 0.0], (len(self.problem.groups), 1))
        self._draws = np.random.default_rng(seed)
        self._norms = norms(self.problem)
        self._spread = np.array([norm.std() for norm in self._norms])
        self._population: list[tuple[float, Affine]] = []  # from the oldest to the youngest

    def learn(
        self,
        total_timesteps: int,
        callback: Callable[[dict[str, Any], dict[str, Any]], bool] | None = None,
    ) -> "LeGRAgent":
        """Step the environment until ``callback`` returns False, at most ``total_timesteps`` times.

        Args:
            total_timesteps: most steps.
            callback: called after every step with the local and the global variables.
        """
        _, info = self.env.reset(seed=self.seed)
        budget, best = info["budget"], -np.inf
        for generation in range(total_timesteps):
            affine = self._candidate(generation)
            action = self._action(affine, budget)
            _, reward, terminated, truncated, _ = self.env.step(action)
            self._population.append((float(reward), affine))
            del self._population[:-POPULATION]
            if reward > best:
                best, self.affine = reward, affine
            if callback is not None and not callback(locals(), globals()):
                break
            if terminated or truncated:
                self.env.reset(options={"budget": budget})
        return self

    def predict(self, observation: Any, **_: Any) -> tuple[Action, None]:
        """Return the action of the best ranking for the observed budget, and no state."""
        budget = max(observed_budget(observation), self.problem.lowest_budget)
        return self._action(self.affine, budget), None

    def save(self, path: str | PathLike[str]) -> None:
        """Write the best ranking as text, one line with scale and shift per group.

        Raises:
            OSError: if the file cannot be written.
        """
        with open(path, "w", encoding="utf-8") as file:
            np.savetxt(file, self.affine)

    def set_parameters(self, path: str | PathLike[str]) -> None:
        """Predict with a ranking that :meth:`save` wrote; a later search starts anew.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it holds no ranking of as many groups.
        """
        try:
            affine = np.loadtxt(read_text(path).splitlines(), ndmin=2)
        except ValueError as error:
            raise ValueError(f"{path} holds no ranking ({error})") from None
        if not np.isfinite(affine).all():
            raise ValueError(f"{path} holds no ranking: its numbers must be finite")
        strategy(self.problem, affine, 1.0)  # refuses another shape
        self.affine = affine

    def _candidate(self, generation: int) -> Affine:
        groups = len(self._spread)
        if generation == POPULATION - 1:
            return np.tile([1.0, 0.0], (groups, 1))
        if generation < POPULATION:
            return self._drawn(np.arange(groups), 1.0)
        sampled = self._draws.choice(len(self._population), SAMPLES)
        _, parent = max((self._population[i] for i in sampled), key=lambda member: member[0])
        step = 1.0 - min(generation, GENERATIONS) / (1.25 * GENERATIONS)
        mutated = self._draws.choice(groups, max(1, int(MUTATED * groups)))
        change = self._drawn(mutated, step)
        return np.column_stack([change[:, 0] * parent[:, 0], change[:, 1] + parent[:, 1]])

    def _drawn(self, groups: NDArray[np.int64], step: float) -> Affine:
        """Random scales and shifts of some groups, the identity elsewhere."""
        affine = np.tile([1.0, 0.0], (len(self._spread), 1))
        affine[groups, 0] = np.exp(self._draws.normal(0.0, SIGMA * step, len(groups)))
        affine[groups, 1] = self._draws.normal(0.0, self._spread[groups])
        return affine

    def _action(self, affine: Affine, budget: float) -> Action:
        keep = _apply_ranking(self.problem, self._norms, affine, budget)
        return self.problem.prune_ratios(keep).astype(np.float32)


def make(env: gym.Env[Any, Action], seed: int) -> LeGRAgent:
    """Make the agent, see ``lfgcl_env.search.protocol.AgentFactory``."""
    return LeGRAgent(env, seed)
