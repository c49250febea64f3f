"""Calibration images as a baseline takes them."""

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfgcl_env.images import load_images
from lfgcl_env.networks import Baseline


def load_calibration(
    baseline: Baseline,
    images: str | Tensor | NDArray[Any],
    count: int | None,
    *,
    seed: int,
    root: str | None,
    download: bool,
) -> Tensor:
    """Calibration images for a baseline, normalised as it expects; ``"random"`` gives noise.

    Raises:
        ValueError, FileNotFoundError, OSError: see :func:`lfgcl_env.images.load_images`.
    """
    if isinstance(images, str) and images == "random":
        count = 256 if count is None else count
        if count < 2:
            raise ValueError(f"at least 2 calibration images are needed, got {count}")
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, *baseline.input_shape, generator=generator)
    if baseline.normalization is None and (
        isinstance(images, str) or images.dtype in (torch.uint8, np.dtype(np.uint8))
    ):
        warnings.warn(
            "how this network's inputs are normalised is not known, so that pixels are only scaled "
            "to [0, 1]: give normalization=((mean, ...), (std, ...)) unless that is right",
            stacklevel=2,
        )
    return load_images(
        images,
        count,
        shape=baseline.input_shape,
        normalization=baseline.normalization,
        seed=seed,
        root=root,
        download=download,
    )
