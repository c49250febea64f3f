"""Several actions, of which the best by cheap scores is executed: a worker screens and scores."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lfgcl_env.pruning.scored_problem import ScoredProblem

Keep = tuple[int, ...]
Scores = NDArray[np.float64]

_Result = TypeVar("_Result")


def highest(scores: Scores) -> int:
    """Return the place of the highest score.

    >>> highest(np.array([0.1, 0.3, 0.2]))
    1
    """
    return int(scores.argmax())


@dataclass(frozen=True, eq=False)
class Choice:
    """Actions of which one is executed, as their cheap scores say.

    Attributes:
        actions: prune ratios; (actions, groups).
        best: returns the place of one of them from the cheap scores of all, float64 (actions,). A
            worker calls a pickled copy of it, so that it must be a function of a module, or an
            object of a module's class, and its result follow from the scores alone.
    """

    actions: NDArray[Any]
    best: Callable[[Scores], int] = highest


@dataclass(eq=False)
class Screened:
    """A choice as a worker is asked for it.

    Attributes:
        keeps: strategies, one for each action.
        best: as in :class:`Choice`.
        known: cheap scores that need not be computed.
        scored: strategies that need no score.
        scores: cheap scores of all, float64 (actions,), once they are there; else None.
    """

    keeps: tuple[Keep, ...]
    best: Callable[[Scores], int]
    known: Mapping[Keep, float]
    scored: frozenset[Keep]
    scores: Scores | None = None

    def __repr__(self) -> str:
        return " or ".join(map(repr, self.keeps))


Item = Keep | Screened
"""What a worker is asked for: the score of a strategy, or of the best of several."""


def score_item(
    problem: ScoredProblem, item: Item, score: Callable[[Keep], _Result]
) -> tuple[Scores | None, _Result | None]:
    """Score a strategy, or screen several and score the best; runs in a worker.

    Returns:
        Cheap scores of several, and the score, unless the best one needs none.
    """
    if not isinstance(item, Screened):
        return None, score(item)
    problem.remember_screened(item.known)
    scores = problem.screen(item.keeps)
    best = item.keeps[item.best(scores)]
    return scores, None if best in item.scored else score(best)
