"""Distillation: learning from the outputs of a trained network."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.optimization import fuse

from lfgcl_env.networks import load_baseline
from training.batches import normalization_constants, normalized


class Teacher:
    """A trained network whose outputs are distilled.

    Args:
        name: of a network with published weights.
        device: where it runs.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        baseline = load_baseline(name)
        assert baseline.normalization is not None
        network = fuse(baseline.network).requires_grad_(False)
        self._network = network.to(device).to(memory_format=torch.channels_last)
        self._constants = normalization_constants(baseline.normalization, device)

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Return logits (images, classes), float32."""
        logits: Tensor = self._network(normalized(pixels, *self._constants))
        return logits.float()


def distillation_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the Kullback-Leibler divergence of softened outputs, times the temperature squared.

    After Hinton, Vinyals, Dean: *Distilling the Knowledge in a Neural Network*, 2015.
    """
    student = F.log_softmax(logits / temperature, 1)
    target = F.log_softmax(teacher / temperature, 1)
    return F.kl_div(student, target, log_target=True, reduction="batchmean") * temperature**2
