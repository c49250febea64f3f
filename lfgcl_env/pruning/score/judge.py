"""The judge: how much a finished network's outputs are the baseline's, on images of its own."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lfgcl_env.networks.feeding import Feeding, fed
from lfgcl_env.pruning.repair.fused_forward import fused
from lfgcl_env.pruning.score.output_values import read_output
from lfgcl_env.pruning.score.similarities import kl


class Judge:
    """Compares networks by their outputs, as :func:`~lfgcl_env.pruning.score.similarities.kl` does.

    Several outputs are compared one by one and averaged.

    What searches and repairs are scored by is what they make large; a judge sees images that they
    did not, so that what it says of two finished networks is about networks and not about images.

    Args:
        baseline: the network that others are compared with, in evaluation mode.
        batches: images on its device.
        places: of the outputs, see :func:`~lfgcl_env.networks.outputs.named_outputs`.
        feeding: how its networks are called, see :class:`~lfgcl_env.networks.Baseline`.
    """

    def __init__(
        self,
        baseline: nn.Module,
        batches: Sequence[Tensor],
        places: Iterable[str],
        feeding: Feeding | None = None,
    ) -> None:
        self._batches, self._places, self._feeding = batches, tuple(places), feeding
        self._targets = self._run(baseline)

    def __call__(self, network: nn.Module) -> float:
        """Return the similarity of a network's outputs to the baseline's, in (0, 1].

        Args:
            network: in evaluation mode, on the device of the images.
        """
        pairs = zip(self._targets, self._run(network), strict=True)
        value = float(np.mean([kl(target, mine) for target, mine in pairs]))
        return value if value == value else 0.0

    @torch.inference_mode()
    def _run(self, network: nn.Module) -> list[Tensor]:
        found: list[list[Tensor]] = [[] for _ in self._places]
        with fed(network, self._feeding), fused(network):
            for batch in self._batches:
                returned = network(batch)
                for place, into in zip(self._places, found, strict=True):
                    into.append(read_output(returned, place))
        return [torch.cat(values) for values in found]
