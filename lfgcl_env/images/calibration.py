"""Calibration images as a baseline takes them."""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfgcl_env.edge.choices import closest
from lfgcl_env.images import embedded_sheet, load_images, synthetic_pixels
from lfgcl_env.images.datasets import DATASETS
from lfgcl_env.networks import Baseline

OF_BASELINE = ("embedded", "synthetic", "random")
"""Words for images that depend on the network."""

MADE = ("synthetic", "random")
"""Words for images that are made when they are asked for, as many as are wanted."""

DEFAULT_COUNT = 256


def default_images(baseline: Baseline) -> str:
    """Return what calibration images are taken from for a baseline unless others are asked for.

    Embedded weights come with images made from them, so that nothing has to be downloaded.
    """
    return "embedded" if baseline.weights == "embedded" else "CIFAR10"


def load_calibration(
    baseline: Baseline,
    images: str | os.PathLike[str] | Tensor | NDArray[Any],
    count: int | None,
    *,
    seed: int,
    root: str | os.PathLike[str] | None,
    download: bool,
    device: str = "cpu",
) -> Tensor:
    """Calibration images for a baseline, normalised as it expects.

    Args:
        baseline: what takes the images.
        images: ``"embedded"``: the package's own for this network; ``"synthetic"``: made from the
            baseline alone, once, and kept in the user's cache; ``"random"``: noise; else see
            :func:`lfgcl_env.images.load_images`.
        count: images wanted; None for all, and for 256 of those that are made.
        seed: of what is made or drawn.
        root: the folder of the data sets.
        download: fetch the data set if it is missing.
        device: where synthetic images are made.

    Raises:
        ValueError, FileNotFoundError, OSError: see :func:`lfgcl_env.images.load_images`; also
            ValueError for embedded images of a network that has none, and synthetic ones of a
            network without BatchNorm.
    """
    if isinstance(images, os.PathLike):
        images = os.fspath(images)
    if isinstance(images, str) and images in MADE:
        wanted = DEFAULT_COUNT if count is None else count
        if wanted < 2:
            raise ValueError(f"at least 2 calibration images are needed, got {wanted}")
        if images == "random":
            generator = torch.Generator().manual_seed(seed)
            return torch.randn(wanted, *baseline.input_shape, generator=generator)
    if baseline.normalization is None and (
        isinstance(images, str) or images.dtype in (torch.uint8, np.dtype(np.uint8))
    ):
        warnings.warn(
            "how this network's inputs are normalised is not known, so that pixels are only scaled "
            "to [0, 1]: give normalization=((mean, ...), (std, ...)) unless that is right",
            stacklevel=2,
        )
    source: str | Path | Tensor | NDArray[Any] = images
    if isinstance(images, str):
        if images == "synthetic":
            source, count = synthetic_pixels(baseline, wanted, seed=seed, device=device), None
        elif images == "embedded":
            source = embedded_sheet(baseline.name)
            if baseline.weights != "embedded":
                warnings.warn(
                    f"these images were made from the package's own weights of {baseline.name}, "
                    f"not from the {baseline.weights} ones: images='synthetic' makes some",
                    stacklevel=2,
                )
        else:
            _check_known(images)
    return load_images(
        source,
        count,
        shape=baseline.input_shape,
        normalization=baseline.normalization,
        seed=seed,
        root=root,
        download=download,
    )


def _check_known(images: str) -> None:
    """Refuse what is no word for images and no path that exists, naming the nearest word."""
    words = (*DATASETS, *OF_BASELINE)
    if images not in words and not Path(images).expanduser().exists():
        raise ValueError(
            f"unknown images {images!r}: choose one of {', '.join(words)}, an image sheet (.png), "
            f"or an existing folder of images.{closest(images, words)}"
        )
