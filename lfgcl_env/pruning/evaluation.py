"""What is known of a strategy once it was scored."""

from dataclasses import dataclass

from lfgcl_env.pruning.budget.tolerance import meets


@dataclass(frozen=True)
class Evaluation:
    """What is known of a strategy once it was scored.

    Attributes:
        keep: channels kept in every group.
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

    def meets(self, budget: float, metric: str) -> bool:
        """Whether it costs no more than a budget of ``"macs"`` or ``"params"``."""
        return meets(getattr(self, f"{metric}_ratio"), budget)
