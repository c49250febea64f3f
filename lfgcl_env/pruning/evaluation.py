"""Evaluation: the score and the costs of a strategy."""

from collections.abc import Sequence
from dataclasses import dataclass

from lfgcl_env.pruning.structure.cost import Cost

SAME_SIMILARITY = 1e-3
"""Similarities of one network under other versions or threads differ by far less."""


@dataclass(frozen=True)
class Evaluation:
    """The score and the costs of a strategy.

    Attributes:
        keep: channels, or bundles of them, kept in every group.
        similarity: of the pruned network's features to the baseline's; 1 for equal ones.
        macs: multiply-accumulates for one input.
        params: number of parameters.
        macs_ratio: ``macs`` as a fraction of the baseline's.
        params_ratio: ``params`` as a fraction of the baseline's.
    """

    keep: tuple[int, ...]
    similarity: float
    macs: int
    params: int
    macs_ratio: float
    params_ratio: float

    @classmethod
    def of(cls, keep: Sequence[int], similarity: float, cost: Cost, baseline: Cost) -> "Evaluation":
        """Make an evaluation from a strategy's score and cost, and the baseline's cost."""
        return cls(
            keep=tuple(keep),
            similarity=similarity,
            macs=cost.macs,
            params=cost.params,
            macs_ratio=cost.macs / baseline.macs,
            params_ratio=cost.params / baseline.params,
        )
