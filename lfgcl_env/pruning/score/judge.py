"""The judge: how much a finished network's outputs are the baseline's, on images of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lfgcl_env.pruning.repair.fused_forward import fused
from lfgcl_env.pruning.score.similarities import kl


class Judge:
    """Compares networks by their outputs, as :func:`~lfgcl_env.pruning.score.similarities.kl` does.

    Outputs are taken for the logits of classes, unless there is only one.

    What searches and repairs are scored by is what they make large; a judge sees images that they
    did not, so that what it says of two finished networks is about networks and not about images.

    Args:
        baseline: the network that others are compared with, in evaluation mode.
        batches: images on its device.
    """

    def __init__(self, baseline: nn.Module, batches: Sequence[Tensor]) -> None:
        self._batches = batches
        self._target = self._run(baseline)

    def __call__(self, network: nn.Module) -> float:
        """Return the similarity of a network's outputs to the baseline's, in (0, 1].

        Args:
            network: in evaluation mode, on the device of the images.
        """
        value = kl(self._target, self._run(network))
        return value if value == value else 0.0

    @torch.inference_mode()
    def _run(self, network: nn.Module) -> Tensor:
        with fused(network):
            return torch.cat([network(batch).flatten(1) for batch in self._batches])
