"""How much a pruned network's features still look like the baseline's. All are 1 for equal ones."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

_TINY = 1e-12


def cosine(baseline: Tensor, pruned: Tensor) -> float:
    """Mean over images of the cosine between the two feature vectors; in [-1, 1].

    Args:
        baseline: (images, features).
        pruned: the same shape.
    """
    return float(F.cosine_similarity(baseline.double(), pruned.double(), dim=1).mean())


def cka(baseline: Tensor, pruned: Tensor) -> float:
    """Linear centred kernel alignment (Kornblith et al., ICML 2019, eq. 4); in [0, 1].

    Blind to rotations and overall scale of the features. Computed from the images' Gram matrices,
    so the cost grows with the square of the number of images, not of features.
    """
    grams = []
    for features in (baseline.double(), pruned.double()):
        centred = features - features.mean(dim=0)
        gram = centred @ centred.T
        grams.append(gram / gram.norm().clamp(min=_TINY))
    return float((grams[0] * grams[1]).sum())


def mse(baseline: Tensor, pruned: Tensor) -> float:
    """1 / (1 + e), e the squared error relative to the baseline features' variance; in (0, 1]."""
    target = baseline.double()
    error = (pruned.double() - target).square().sum()
    variance = (target - target.mean(dim=0)).square().sum().clamp(min=_TINY)
    return float(1.0 / (1.0 + error / variance))


def kl(baseline: Tensor, pruned: Tensor) -> float:
    """exp(-d), d the mean KL divergence of softened outputs from the baseline's; in (0, 1].

    Hinton et al. (2015) with temperature 4. Compares the networks' outputs, not their features.

    Args:
        baseline: logits (images, classes).
        pruned: logits of the same shape.
    """
    temperature = 4.0
    target = F.log_softmax(baseline.double() / temperature, dim=1)
    log_probabilities = F.log_softmax(pruned.double() / temperature, dim=1)
    divergence = F.kl_div(log_probabilities, target, reduction="batchmean", log_target=True)
    return float(torch.exp(-divergence * temperature**2))


def agreement(baseline: Tensor, pruned: Tensor) -> float:
    """Fraction of images on which both networks' largest outputs are the same; in [0, 1].

    Outputs that are not finite agree with nothing.

    Args:
        baseline: logits (images, classes).
        pruned: logits of the same shape.
    """
    same = baseline.argmax(dim=1) == pruned.argmax(dim=1)
    return float((same & torch.isfinite(pruned).all(dim=1)).double().mean())


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], float]] = {
    "cosine": cosine,
    "cka": cka,
    "mse": mse,
    "kl": kl,
    "agreement": agreement,
}

OF_OUTPUTS = frozenset({"kl", "agreement"})
"""Similarities that compare the networks' outputs whatever modules are named."""

WORST = {"cosine": -1.0, "cka": 0.0, "mse": 0.0, "kl": 0.0, "agreement": 0.0}
"""What a network whose features are not finite gets."""
