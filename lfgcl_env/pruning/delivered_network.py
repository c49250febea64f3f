"""The network that is handed over for a strategy, and which of several it is."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from lfgcl_env.pruning.evaluation import Evaluation

Delivery = Literal["thorough", "quick", "scored", "cut"]

DELIVERIES: dict[Delivery, str] = {
    "thorough": "repaired thoroughly, layer by layer",
    "quick": "repaired quickly, layer by layer: the thorough repair made it worse",
    "scored": "as it was scored in the search",
    "cut": "merely cut: every repair that was tried made it worse",
}
"""The networks of one strategy that may be handed over; each completes "the network ..."."""


@dataclass(frozen=True)
class Delivered:
    """The best network of a strategy.

    Attributes:
        network: on the CPU.
        evaluation: the strategy's costs, and this network's similarity.
        delivery: one of :data:`DELIVERIES`.
    """

    network: nn.Module
    evaluation: Evaluation
    delivery: Delivery
