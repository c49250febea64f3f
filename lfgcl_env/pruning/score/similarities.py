"""Similarities of a pruned network's features to the baseline's. All are 1 for equal ones.

A new similarity is a function of two matrices (images, features) under the decorator
:func:`similarity`, whose arguments say where it compares.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lfgcl_env.networks.outputs import holds_classes
from lfgcl_env.pruning.score.features import entrance_of_last_third
from lfgcl_env.pruning.structure.slice_plan import SlicePlan

_TINY = 1e-12
_TEMPERATURE = 4.0
_DISCOUNT = 0.6
_FLOOR = 0.03  # of an upstream error, so that almost none is not discounted most


@dataclass(frozen=True)
class Similarity:
    """How features are compared, where, and what the worst is.

    Attributes:
        compare: from the baseline's and the pruned network's features, each (images, features), to
            a number of at most 1, which equal ones get.
        worst: what a network gets whose features are not finite.
        of_outputs: whether the networks' outputs are compared whatever modules are named.
        upstream: finds the layer whose input's :func:`relative_error` is handed to ``compare`` as
            ``upstream_error``, in networks that have such a layer and where no modules are named;
            None for similarities that need no such error.
        of_classes: whether every output must hold scores of classes.
    """

    compare: Callable[..., float]
    worst: float = 0.0
    of_outputs: bool = False
    upstream: Callable[[SlicePlan], str | None] | None = None
    of_classes: bool = False

    def __call__(self, baseline: Tensor, pruned: Tensor, **upstream: float) -> float:
        """Compare the features of one place."""
        return self.compare(baseline, pruned, **upstream)


SIMILARITIES: dict[str, Similarity] = {}
"""Similarities by name; see :func:`similarity`."""

_Compare = Callable[..., float]


def similarity(
    name: str,
    *,
    worst: float = 0.0,
    of_outputs: bool = False,
    upstream: Callable[[SlicePlan], str | None] | None = None,
    of_classes: bool = False,
) -> Callable[[_Compare], _Compare]:
    """Register how features are compared under a name in :data:`SIMILARITIES`.

    Args:
        name: for users.
        worst: see :class:`Similarity`.
        of_outputs: see there.
        upstream: see there.
        of_classes: see there.
    """

    def register(function: _Compare) -> _Compare:
        SIMILARITIES[name] = Similarity(function, worst, of_outputs, upstream, of_classes)
        return function

    return register


def variance(features: Tensor) -> float:
    """Sum up squared deviations from the mean over images; features are (images, features)."""
    deviations = (features - features.mean(dim=0)).square().sum(dtype=torch.float64)
    return float(deviations.clamp(min=_TINY))


def relative_error(baseline: Tensor, pruned: Tensor, of_baseline: float | None = None) -> float:
    """Divide the squared error by the variance of the baseline's features; 0 for equal ones.

    Args:
        baseline: (images, features).
        pruned: the same shape.
        of_baseline: the variance, if it is known.
    """
    error = (pruned - baseline).square().sum(dtype=torch.float64)  # inf where it overflows
    return float(error) / (variance(baseline) if of_baseline is None else of_baseline)


@similarity("discounted_mse", upstream=entrance_of_last_third)
def discounted_mse(baseline: Tensor, pruned: Tensor, upstream_error: float = 1.0) -> float:
    """Compare as :func:`mse`, with less weight on errors that enter the last third of the network.

    1 / (1 + e ((1 + c) / (i + c))^0.6) with c = 0.03: e is the relative squared error of the
    features, i that of what enters the last third of the groups (:func:`relative_error`). In
    logarithms this is 0.4 parts error at the end and 0.6 parts growth of the error in the last
    third. A later repair refits every layer on the inputs that it gets in the pruned network, and
    so corrects much of what earlier layers lost, but not what the last layers cannot express any
    more. How the form was found and what it gains is in docs/fidelity.md; in (0, 1].

    Args:
        baseline: (images, features).
        pruned: the same shape.
        upstream_error: i; more than 1 counts as 1, with which it is ``mse``.
    """
    growth = ((1.0 + _FLOOR) / (min(upstream_error, 1.0) + _FLOOR)) ** _DISCOUNT
    return 1.0 / (1.0 + relative_error(baseline.double(), pruned.double()) * growth)


@similarity("mse")
def mse(baseline: Tensor, pruned: Tensor) -> float:
    """Return 1 / (1 + e) of the :func:`relative_error` e; in (0, 1]."""
    return 1.0 / (1.0 + relative_error(baseline.double(), pruned.double()))


@similarity("cosine", worst=-1.0)
def cosine(baseline: Tensor, pruned: Tensor) -> float:
    """Average the cosine between the two feature vectors over images; in [-1, 1].

    Args:
        baseline: (images, features).
        pruned: the same shape.
    """
    return float(F.cosine_similarity(baseline.double(), pruned.double(), dim=1).mean())


@similarity("cka")
def cka(baseline: Tensor, pruned: Tensor) -> float:
    """Compute linear centred kernel alignment (Kornblith et al., ICML 2019, eq. 4); in [0, 1].

    Blind to rotations and overall scale of the features. Computed from the images' Gram matrices,
    so the cost grows with the square of the number of images, not of features.
    """
    grams = []
    for features in (baseline.double(), pruned.double()):
        centred = features - features.mean(dim=0)
        gram = centred @ centred.T
        grams.append(gram / gram.norm().clamp(min=_TINY))
    return float((grams[0] * grams[1]).sum())


@similarity("kl", of_outputs=True)
def kl(baseline: Tensor, pruned: Tensor) -> float:
    """Return exp(-d) of the mean KL divergence d of softened predictions; in (0, 1].

    Softened by a temperature of 4, as Hinton et al. (2015) do: that ranks delivered networks better
    than predictions as they are, see docs/fidelity.md. Compares the networks' outputs, not their
    features. In maps every pixel is predicted. Where there are no classes it is :func:`mse`.

    Args:
        baseline: logits (images, classes) or (images, classes, height, width); or other outputs,
            see :func:`~lfgcl_env.networks.outputs.holds_classes`.
        pruned: of the same shape.
    """
    if not holds_classes(baseline.shape[1:]):
        return mse(baseline.flatten(1), pruned.flatten(1))
    target, found = (
        F.log_softmax(logits.movedim(1, -1).flatten(0, -2).double() / _TEMPERATURE, dim=1)
        for logits in (baseline, pruned)
    )
    return float(torch.exp(-F.kl_div(found, target, reduction="batchmean", log_target=True)))


@similarity("agreement", of_outputs=True, of_classes=True)
def agreement(baseline: Tensor, pruned: Tensor) -> float:
    """Count the fraction of images, or pixels, whose largest outputs are the same; in [0, 1].

    Outputs that are not finite agree with nothing.

    Args:
        baseline: logits (images, classes) or (images, classes, height, width).
        pruned: logits of the same shape.
    """
    same = baseline.argmax(dim=1) == pruned.argmax(dim=1)
    return float((same & torch.isfinite(pruned).all(dim=1)).double().mean())
