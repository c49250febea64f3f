"""Checks of images, outputs and prune ratios, and images split into batches."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lfgcl_env.edge.schema import short
from lfgcl_env.images.chunks import chunks_of
from lfgcl_env.networks import Baseline
from lfgcl_env.networks.outputs import holds_classes
from lfgcl_env.pruning.score.features import OUTPUT
from lfgcl_env.pruning.score.similarities import SIMILARITIES

_PLAIN_BATCH_VALUES = 2**18  # 85 CIFAR images: what a CPU's cache holds well
_LARGE_BATCH_VALUES = 2**22  # 1,365 CIFAR images: one pass serves statistics and features
_ACCELERATOR_BATCH_VALUES = 2**26


def check_images(images: Tensor, what: str = "calibration") -> Tensor:
    """Return images, detached.

    Args:
        images: to be checked.
        what: they are for, to name them in the error.

    Raises:
        ValueError: if they are not at least two finite float tensors shaped like inputs.
    """
    if not isinstance(images, Tensor) or images.dim() < 2 or not images.is_floating_point():
        raise ValueError(
            "images must be a float tensor (images, ...), such as (images, channels, height, "
            "width), normalised as the network expects: see lfgcl_env.images.load_images; got "
            f"{_describe(images)}"
        )
    if len(images) < 2:
        raise ValueError(f"at least 2 {what} images are needed, got {len(images)}")
    if not bool(torch.isfinite(images).all()):
        raise ValueError("images hold NaN or infinite values")
    return images.detach()


def _describe(images: object) -> str:
    if isinstance(images, Tensor):
        return f"{images.dtype} of shape {tuple(images.shape)}"
    return type(images).__name__


def check_fit(baseline: Baseline, images: Tensor) -> None:
    """Refuse images of another shape than a network's inputs.

    Raises:
        ValueError: if they have one.
    """
    if tuple(images.shape[1:]) == tuple(baseline.input_shape):
        return
    if baseline.packing is not None:
        raise ValueError(
            f"{baseline.title} takes several inputs ({baseline.packing}), got a tensor of shape "
            f"{tuple(images.shape)}"
        )
    raise ValueError(
        f"images have shape {tuple(images.shape[1:])}, "
        f"and the network takes {tuple(baseline.input_shape)}"
    )


def check_outputs(
    baseline: Baseline, similarity: str, features: str | Sequence[str] | None
) -> None:
    """Refuse to compare outputs that cannot be compared.

    Args:
        baseline: the network.
        similarity: a name in :data:`~lfgcl_env.pruning.score.similarities.SIMILARITIES`.
        features: modules whose outputs are compared; None for what feeds the network's outputs.

    Raises:
        ValueError: if every image has other numbers of them, or classes are needed and missing.
    """
    kind = SIMILARITIES[similarity]
    if features is not None and kind.of_outputs:
        raise ValueError(
            f"similarity {similarity!r} compares outputs, and no other features: leave features "
            "out, or choose another similarity"
        )
    wanted = [features] if isinstance(features, str) else features
    if not baseline.outputs and (wanted is None or OUTPUT in wanted):
        raise ValueError(
            f"{baseline.title} returns nothing that has one shape for all images, as detections "
            "have not: give features, the names of modules to compare, such as a layer of the "
            "backbone"
        )
    if kind.of_classes and not all(map(holds_classes, baseline.outputs.values())):
        shapes = ", ".join(str(shape) for shape in baseline.outputs.values())
        raise ValueError(
            f"similarity {similarity!r} is for classes, and {baseline.title} returns {shapes} for "
            "an image: choose 'kl', which compares other numbers too"
        )


def split_images(images: Tensor, layout: torch.memory_format, *, large: bool) -> list[Tensor]:
    """Split images into batches of the size that is fastest on their device.

    Args:
        images: on the device and of the type that they are run in.
        layout: of the batches in memory.
        large: whether batches are to be large rather than fast on a CPU, as for statistics.
    """
    values = _LARGE_BATCH_VALUES if large else _PLAIN_BATCH_VALUES
    if images.device.type != "cpu":
        values = _ACCELERATOR_BATCH_VALUES
    size = max(8, values // images[0].numel())
    return [batch.contiguous(memory_format=layout) for batch in chunks_of(images, size)]


def check_ratios(prune_ratios: ArrayLike, groups: int) -> NDArray[np.float64]:
    """Return prune ratios as float64, (groups,), in [0, 1].

    Raises:
        ValueError: for a wrong shape, NaN, or ratios outside [0, 1] by more than rounding.
    """
    try:
        ratios = np.asarray(prune_ratios, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise ValueError(
            f"prune ratios must be {groups} numbers, one per group, got {short(prune_ratios)}"
        ) from None
    if ratios.shape != (groups,):
        raise ValueError(
            f"prune ratios must have shape ({groups},), one entry per group, got {ratios.shape}"
        )
    if not np.isfinite(ratios).all():
        index = int(np.flatnonzero(~np.isfinite(ratios))[0])
        raise ValueError(f"prune ratios must be finite: entry {index} is {ratios[index]}")
    if ratios.min() < -1e-6 or ratios.max() > 1 + 1e-6:
        raise ValueError(
            f"prune ratios must lie in [0, 1], got {ratios.min():.4g} to {ratios.max():.4g}"
        )
    return np.clip(ratios, 0.0, 1.0)
