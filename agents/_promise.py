"""What a proposal of the LFGCL agent promises once it is screened."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ._replay import Observation, Replay, relative_values


@dataclass(frozen=True, eq=False)
class Promise:
    """Picks the proposal whose value, corrected by its cheap score, is the highest.

    What is measured beyond the expected cheap score corrects the value, as far as cheap scores rank
    returns: a control variate. Both are relative to the cheap scores that the agent knew when it
    made the proposals.

    Attributes:
        value: of every proposal, by the critics; (proposals,).
        expected: the cheap scores that the critics expect; (proposals,).
        trust: how far cheap scores have ranked returns.
        budgets: logits; of the strategies with known cheap scores, then of new proposals.
        known: cheap scores of the first of these.
        places: of every proposal among these.
        degree: of the polynomial of budgets that is subtracted.
    """

    value: NDArray[np.float32]
    expected: NDArray[np.float32]
    trust: float
    budgets: NDArray[np.float64]
    known: NDArray[np.float64]
    places: list[int]
    degree: int

    @staticmethod
    def of(
        value: Tensor,
        expected: Tensor,
        trust: float,
        cheap: Replay,
        observation: Observation,
        keep: NDArray[np.float32],
        degree: int,
    ) -> "Promise":
        """Return the promise of proposals.

        Args:
            value: see the class.
            expected: likewise.
            trust: likewise.
            cheap: strategies with known cheap scores.
            observation: of this episode.
            keep: what would be executed; (proposals, groups).
            degree: see the class.
        """
        budgets, known, places = cheap.with_others(observation, keep)
        return Promise(value.numpy(), expected.numpy(), trust, budgets, known, places, degree)

    def __call__(self, scores: NDArray[np.float64]) -> int:
        """Return the place of the most promising proposal, from the cheap scores of all."""
        cheap = np.append(self.known, np.zeros(len(self.budgets) - len(self.known)))
        for place, score in zip(reversed(self.places), reversed(scores.tolist()), strict=True):
            if place >= len(self.known):
                cheap[place] = score
        measured = relative_values(self.budgets, cheap, self.degree)[self.places].numpy()
        return int((self.value + self.trust * (measured - self.expected)).argmax())
