"""Checks of what a pruning problem is given."""

import torch
from torch import Tensor

from lfgcl_env.networks import Baseline
from lfgcl_env.pruning.layers import BATCH_NORMS


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
