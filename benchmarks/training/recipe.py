"""How a network is trained."""

import math
from dataclasses import dataclass

CLASSES = {"CIFAR10": 10, "CIFAR100": 100}

RISE = 0.2
"""Fraction of the steps in which a one-cycle learning rate rises."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, except the machine.

    Attributes:
        network: a name of :func:`lfgcl_env.networks.network_names`.
        data: CIFAR10 or CIFAR100.
        epochs: times that every image is seen.
        batch_size: images of a step.
        learning_rate: the highest one, of SGD with Nesterov momentum.
        momentum: of SGD.
        weight_decay: of weights of convolutions and linear layers; biases and BatchNorm have none.
        schedule: ``one-cycle``: linearly up for a fifth of the steps, and down to 0; or
            ``cosine``: down to 0 from the start.
        smoothing: of the labels.
        ema: decay of the moving average of weights and BatchNorm statistics, per step.
        precision: ``bf16`` (autocast) or ``fp32``.
        teacher: a network whose published weights are distilled; None for none.
        distillation: share of the teacher in the loss.
        temperature: that outputs are divided by for the teacher's share.
        seed: of weights, order, crops and flips.
        subset: train on so many images only; None for all.
        held_out: training images that are not trained on; accuracy is measured on them.
        grown_from: SHA-256 of the weights that training starts from; None for random ones.
    """

    network: str
    data: str = "CIFAR10"
    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "one-cycle"
    smoothing: float = 0.1
    ema: float = 0.998
    precision: str = "fp32"
    teacher: str | None = None
    distillation: float = 0.7
    temperature: float = 4.0
    seed: int = 0
    subset: int | None = None
    held_out: int = 0
    grown_from: str | None = None

    def rate(self, progress: float) -> float:
        """Return the learning rate at a fraction of all steps."""
        if self.schedule == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * progress)) / 2
        return self.learning_rate * min(progress / RISE, (1 - progress) / (1 - RISE))
