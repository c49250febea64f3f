"""Accuracy of strategies on labelled images, what AMC rewards."""

from collections.abc import Sequence

from numpy.typing import ArrayLike

from lfgcl_env.images import LabelledImages, top1
from lfgcl_env.pruning.problem import PruningProblem


class StrategyAccuracy:
    """Tests the networks of strategies; one tested before is looked up.

    Args:
        problem: what is pruned.
        labelled: images and labels.
    """

    def __init__(self, problem: PruningProblem, labelled: LabelledImages) -> None:
        self._problem, self._labelled = problem, labelled
        self._known: dict[tuple[int, ...], float] = {}

    def __call__(self, strategy: ArrayLike) -> float:
        """Return top-1 as a fraction, in [0, 1].

        Args:
            strategy: channels kept in every group.
        """
        evaluation = self._problem.evaluate(strategy)
        if evaluation.keep not in self._known:
            network = self._problem.compress(strategy)
            percent = top1(network, self._labelled, device=self._problem.device)
            self._known[evaluation.keep] = percent / 100
        return self._known[evaluation.keep]

    def forget(self) -> None:
        """Measure all anew."""
        self._known.clear()

    def remember(self, keep: Sequence[int], accuracy: float) -> None:
        """Take over what was measured before, in [0, 1]."""
        self._known[tuple(keep)] = accuracy
