"""Calibration images for a baseline."""

import os
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfgcl_env.edge.choices import closest
from lfgcl_env.edge.value_checks import check_count, check_seed
from lfgcl_env.images import embedded_sheet, load_images, synthetic_pixels
from lfgcl_env.images.arrays import check_memory
from lfgcl_env.images.datasets import DATASETS, dataset_for
from lfgcl_env.networks import Baseline
from lfgcl_env.networks.several_inputs import Several, pack_inputs

OF_BASELINE = ("embedded", "synthetic", "random")
"""Words for images that depend on the network."""

MADE = ("synthetic", "random")
"""Words for images that are generated, in any number."""

DEFAULT_COUNT = 256

_PIXELS = (torch.uint8, np.dtype(np.uint8))


def default_images(baseline: Baseline) -> str:
    """Return the default source of calibration images for a baseline.

    For embedded weights the package has images made from them, so that nothing is downloaded.
    """
    return "embedded" if baseline.weights == "embedded" else default_data(baseline)


def default_data(baseline: Baseline) -> str:
    """Return the data set that has a baseline's image size and classes; ``"CIFAR10"`` if none."""
    return dataset_for(baseline.input_shape, baseline.num_classes) or "CIFAR10"


def load_calibration(
    baseline: Baseline,
    images: str | os.PathLike[str] | Tensor | NDArray[Any] | Several,
    count: int | None,
    *,
    seed: int,
    root: str | os.PathLike[str] | None,
    download: bool,
    device: str = "cpu",
) -> Tensor:
    """Load calibration images, normalised as a baseline expects them.

    Args:
        baseline: the network that the images are for.
        images: ``"embedded"``: the package's own for this network; ``"synthetic"``: made from the
            baseline alone, and cached; ``"random"``: noise; several inputs of a network that takes
            them, which are packed; else see :func:`lfgcl_env.images.load_images`.
        count: number of images; None for all, or for 256 generated ones.
        seed: of the generation or the draw.
        root: folder of the data sets.
        download: download the data set if it is missing.
        device: where synthetic images are made.

    Raises:
        ValueError, FileNotFoundError, OSError: see :func:`lfgcl_env.images.load_images`; also
            ValueError for embedded images of a network that has none, and synthetic ones of a
            network without BatchNorm.
    """
    images = pack_inputs(baseline.packing, images, baseline.title)
    if isinstance(images, os.PathLike):
        images = os.fspath(images)
    if isinstance(images, str) and images in MADE:
        wanted = DEFAULT_COUNT if count is None else check_count(count, "num_images")
        if wanted < 2:
            raise ValueError(f"at least 2 calibration images are needed, got {wanted}")
        check_memory(wanted, baseline.input_shape, f"{images} images")
        if images == "random":
            generator = torch.Generator().manual_seed(check_seed(seed))
            return torch.randn(wanted, *baseline.input_shape, generator=generator)
    pixels = isinstance(images, str) or getattr(images, "dtype", None) in _PIXELS
    if baseline.normalization is None and pixels:
        warnings.warn(
            "the normalization of this network's inputs is not known, so pixels are only scaled to "
            "[0, 1]: give normalization=((mean, ...), (std, ...)) (--normalization) if it needs "
            "another",
            stacklevel=2,
        )
    source: Any = images
    if isinstance(images, str):
        if images == "synthetic":
            source, count = synthetic_pixels(baseline, wanted, seed=seed, device=device), None
        elif images == "embedded":
            source = embedded_sheet(baseline.name)
            if baseline.weights != "embedded":
                warnings.warn(
                    f"these images were made from the embedded weights of {baseline.name}, not "
                    f"from its {baseline.weights} ones: images='synthetic' makes images from these",
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
    """Refuse a name that is no known word and no existing path; name the nearest word."""
    words = (*DATASETS, *OF_BASELINE)
    if images not in words and not os.path.exists(os.path.expanduser(images)):
        raise ValueError(
            f"unknown images {images!r}: choose one of {', '.join(words)}, an image sheet (.png), "
            f"or an existing folder of images.{closest(images, words)}"
        )
