"""How much a pruned network's features still look like the baseline's. All are 1 for equal ones."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

_TINY = 1e-12
_FORGIVEN = 0.6
_FLOOR = 0.03  # of an upstream_error error, so that little more than none is not forgiven most


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


def variance(features: Tensor) -> float:
    """Sum of squared deviations from the mean over images; features are (images, features)."""
    deviations = (features - features.mean(dim=0)).square().sum(dtype=torch.float64)
    return float(deviations.clamp(min=_TINY))


def relative_error(baseline: Tensor, pruned: Tensor, of_baseline: float | None = None) -> float:
    """Squared error relative to the baseline features' variance over images; 0 for equal ones.

    Args:
        baseline: (images, features).
        pruned: the same shape.
        of_baseline: the variance, if it is known.
    """
    error = (pruned - baseline).square().sum(dtype=torch.float64)  # inf where it overflows
    return float(error) / (variance(baseline) if of_baseline is None else of_baseline)


def mse(baseline: Tensor, pruned: Tensor) -> float:
    """1 / (1 + e), e the squared error relative to the baseline features' variance; in (0, 1]."""
    return 1.0 / (1.0 + relative_error(baseline.double(), pruned.double()))


def discounted_mse(baseline: Tensor, pruned: Tensor, upstream_error: float = 1.0) -> float:
    """Like :func:`mse`, with less weight on errors that the last third of the network inherits.

    1 / (1 + e ((1 + c) / (i + c))^0.6) with c = 0.03: e is the relative squared error of the
    features, i that of what enters the last third of the groups (:func:`relative_error`). In
    logarithms this is 0.4 parts error at the end and 0.6 parts growth of the error in the last
    third. A later repair refits every layer on what the pruned layers before it hand on, and so
    takes back much of what they broke, but not what the last layers cannot express any more. For
    how it was found and what it is worth see docs/fidelity.md; in (0, 1].

    Args:
        baseline: (images, features).
        pruned: the same shape.
        upstream_error: i; more than 1 counts as 1. With 1, where no such place is known, it is
            ``mse``.
    """
    growth = ((1.0 + _FLOOR) / (min(upstream_error, 1.0) + _FLOOR)) ** _FORGIVEN
    return 1.0 / (1.0 + relative_error(baseline.double(), pruned.double()) * growth)


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
    "discounted_mse": discounted_mse,
    "mse": mse,
    "cosine": cosine,
    "cka": cka,
    "kl": kl,
    "agreement": agreement,
}

OF_OUTPUTS = frozenset({"kl", "agreement"})
"""Similarities that compare the networks' outputs whatever modules are named."""

WORST = {"cosine": -1.0, "cka": 0.0, "mse": 0.0, "discounted_mse": 0.0, "kl": 0.0, "agreement": 0.0}
"""What a network whose features are not finite gets."""
