"""Checks of what a pruning problem is given, and images cut into batches."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lfgcl_env.networks import Baseline
from lfgcl_env.pruning.structure.groups import Group
from lfgcl_env.pruning.structure.layers import BATCH_NORMS

_PLAIN_BATCH_VALUES = 2**18  # 85 CIFAR images: what a CPU's cache holds well
_STATISTICS_BATCH_VALUES = 2**22  # 1,365 CIFAR images: one pass serves statistics and features
_ACCELERATOR_BATCH_VALUES = 2**26


def checked_images(images: Tensor) -> Tensor:
    """Return calibration images, detached.

    Raises:
        ValueError: if they are not at least two finite float tensors shaped like inputs.
    """
    if not isinstance(images, Tensor) or images.dim() < 2 or not images.is_floating_point():
        raise ValueError(
            "images must be a float tensor (images, channels, height, width), normalised as the "
            f"network expects: see lfgcl_env.images.load_images; got {_described(images)}"
        )
    if len(images) < 2:
        raise ValueError(f"at least 2 calibration images are needed, got {len(images)}")
    if not bool(torch.isfinite(images).all()):
        raise ValueError("images hold NaN or infinite values")
    return images.detach()


def _described(images: object) -> str:
    if isinstance(images, Tensor):
        return f"{images.dtype} of shape {tuple(images.shape)}"
    return type(images).__name__


def check_fit(baseline: Baseline, images: Tensor, repair: str) -> None:
    """Refuse images or a repair that a network cannot take.

    Raises:
        ValueError: if the shape of the images is not its inputs', or BatchNorm is missing.
    """
    if tuple(images.shape[1:]) != tuple(baseline.input_shape):
        raise ValueError(
            f"images have shape {tuple(images.shape[1:])}, "
            f"and the network takes {tuple(baseline.input_shape)}"
        )
    norms = any(isinstance(module, BATCH_NORMS) for module in baseline.network.modules())
    if repair == "batchnorm" and not norms:
        raise ValueError(
            "repair 'batchnorm' needs BatchNorm layers and this network has none: use 'none'"
        )


def split_images(images: Tensor, layout: torch.memory_format, *, statistics: bool) -> list[Tensor]:
    """Cut images into batches that run fast where they are.

    Args:
        images: on the device and of the type that they are run in.
        layout: of the batches in memory.
        statistics: whether BatchNorm statistics are to be taken of a batch, the larger the better.
    """
    values = _STATISTICS_BATCH_VALUES if statistics else _PLAIN_BATCH_VALUES
    if images.device.type != "cpu":
        values = _ACCELERATOR_BATCH_VALUES
    size = max(8, values // images[0].numel())
    return [batch.contiguous(memory_format=layout) for batch in torch.split(images, size)]


def checked_ratios(prune_ratios: ArrayLike, groups: int) -> NDArray[np.float64]:
    """Return prune ratios as float64, (groups,), in [0, 1].

    Raises:
        ValueError: for a wrong shape, NaN, or ratios outside [0, 1] by more than rounding.
    """
    ratios = np.asarray(prune_ratios, dtype=np.float64)
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


def checked_strategy(strategy: ArrayLike, groups: Sequence[Group]) -> NDArray[np.int64]:
    """Return a strategy as int64, (groups,).

    Raises:
        ValueError: if it has another shape, or counts that a group cannot keep.
    """
    keep = np.asarray(strategy)
    channels = np.array([group.channels for group in groups], dtype=np.int64)
    if keep.shape != channels.shape or not np.issubdtype(keep.dtype, np.number):
        raise ValueError(
            f"a strategy holds one count of kept channels for each of the {len(groups)} "
            f"groups, got {keep.dtype} of shape {keep.shape}"
        )
    whole = keep.astype(np.int64) if np.isfinite(keep).all() else np.zeros_like(channels)
    wrong = np.flatnonzero((whole != keep) | (whole < 1) | (whole > channels))
    if len(wrong):
        group = groups[wrong[0]]
        raise ValueError(
            f"group {group.name} can keep 1 to {group.channels} channels, got {keep[wrong[0]]}"
        )
    return whole
