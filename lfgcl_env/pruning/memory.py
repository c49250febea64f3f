"""Memory of scored strategies, so that none is scored twice, and counts of those asked for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf

import numpy as np
from numpy.typing import NDArray

from lfgcl_env.edge.schema import short
from lfgcl_env.pruning.evaluation import Evaluation
from lfgcl_env.pruning.structure.cost import Cost

_HIGHEST = 1 + 1e-6  # forgives rounding

Keep = tuple[int, ...]


class Memory:
    """Evaluations of one problem by strategy.

    Args:
        score: evaluates a strategy that is not remembered; int64, (groups,).
    """

    def __init__(self, score: Callable[[NDArray[np.int64]], Evaluation]) -> None:
        self._score = score
        self._evaluations: dict[Keep, Evaluation] = {}
        self._open: list[set[Keep]] = []

    def __contains__(self, keep: NDArray[np.int64]) -> bool:
        return _key(keep) in self._evaluations

    def evaluate(self, keep: NDArray[np.int64]) -> Evaluation:
        """Look a strategy up or score it, and count it."""
        key = _key(keep)
        if key not in self._evaluations:
            self._evaluations[key] = self._score(keep)
        for counted in self._open:
            counted.add(key)
        return self._evaluations[key]

    def add(self, evaluation: Evaluation, cost: Cost) -> None:
        """Remember an evaluation made elsewhere, without counting it.

        Args:
            evaluation: checked by :func:`check_evaluation`.
            cost: of the same strategy in this problem.

        Raises:
            ValueError: if the evaluation's costs are others.
        """
        if (cost.macs, cost.params) != (evaluation.macs, evaluation.params):
            raise ValueError(
                f"an evaluation with {evaluation.macs} MACs and {evaluation.params} parameters is "
                f"not of this problem: the same strategy has {cost.macs} and {cost.params} here"
            )
        self._evaluations[tuple(int(k) for k in evaluation.keep)] = evaluation

    def clear(self) -> None:
        """Drop all evaluations; counts go on."""
        self._evaluations.clear()

    @contextmanager
    def count(self) -> Iterator[set[Keep]]:
        """Collect the distinct strategies evaluated inside the block, looked-up ones included."""
        counted: set[Keep] = set()
        self._open.append(counted)
        try:
            yield counted
        finally:
            self._open = [other for other in self._open if other is not counted]


def check_evaluation(evaluation: Evaluation) -> None:
    """Refuse what is no evaluation with a finite similarity of at most 1.

    Raises:
        ValueError: if it is none.
    """
    fits = isinstance(evaluation, Evaluation) and type(evaluation.similarity) in (int, float)
    if not fits or not -inf < evaluation.similarity <= _HIGHEST:
        raise ValueError(
            "only an Evaluation with a finite similarity of at most 1 can be remembered, got "
            f"{short(evaluation)}"
        )


def _key(keep: NDArray[np.int64]) -> Keep:
    return tuple(int(k) for k in keep)
