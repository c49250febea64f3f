"""Sources of calibration images, the only data that search and repair see; without labels."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lfgcl_env.edge.choices import closest
from lfgcl_env.edge.value_checks import check_count, check_seed, check_shape
from lfgcl_env.images.arrays import array_inputs, choose
from lfgcl_env.images.datasets import DATASETS, read_dataset
from lfgcl_env.images.folder import SUFFIXES, image_files, read_files
from lfgcl_env.images.image_sheet import SUFFIX, read_sheet
from lfgcl_env.images.pixels import Shape, to_inputs
from lfgcl_env.networks import Normalization


def load_images(
    source: str | os.PathLike[str] | Tensor | np.ndarray[Any, Any],
    count: int | None,
    *,
    shape: Sequence[int],
    normalization: Normalization | None,
    seed: int = 0,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
) -> Tensor:
    """Load unlabelled images, normalised for a network.

    Args:
        source: ``"CIFAR10"`` or ``"CIFAR100"`` (training images; labels are dropped), a folder of
            image files, an image sheet (``.png``) written by ``lfgcl synthesize``, uint8 pixels
            (images, channels, height, width) or (images, height, width, channels), or
            floating-point inputs (images, ...), which must be normalised already.
        count: number of images, drawn with ``seed``; None for all.
        shape: of one input of the network. Images of data sets and folders are resized and
            centre-cropped to (channels, height, width); tensors and arrays must have the shape.
        normalization: of the network; None leaves pixels in [0, 1].
        seed: of the draw.
        root: the folder of the data sets, see :func:`data_root`.
        download: download the data set if it is missing.

    Returns:
        ``(count, *shape)``, float32, normalised; never shares memory with ``source``.

    Raises:
        ValueError: if the source is unknown, holds too few images or an unreadable one, does not
            fit ``shape``, or looks as if it were not normalised.
        FileNotFoundError: if the data set is missing; the message says how to get it.
        OSError: if the data set cannot be downloaded.

    >>> normalization = Normalization((0.5,), (0.25,))
    >>> pixels = np.full((4, 1, 2, 2), 255, dtype=np.uint8)
    >>> load_images(pixels, 1, shape=(1, 2, 2), normalization=normalization)
    tensor([[[[2., 2.],
              [2., 2.]]]])
    """
    size: Shape = check_shape(shape, "shape")
    seed = check_seed(seed)
    if count is not None:
        count = check_count(count, "the number of images")
    if isinstance(source, Tensor | np.ndarray):
        return array_inputs(source, count, shape=size, normalization=normalization, seed=seed)
    if len(size) != 3:
        raise ValueError(
            f"{str(source)!r} holds images, and the network takes inputs of shape {size}: give a "
            "tensor or an array of them, or 'random'"
        )
    if source in DATASETS:
        pixels = read_dataset(str(source), train=True, root=root, download=download).pixels
        pixels = pixels[choose(len(pixels), count, seed, str(source))]
        return to_inputs(pixels, normalization, size)
    if _is_sheet(source):
        pixels, _ = read_sheet(str(source))
        pixels = pixels[choose(len(pixels), count, seed, f"the image sheet {str(source)!r}")]
        return to_inputs(pixels, normalization, size)
    folder = _folder(source)
    files = image_files(folder)
    if not files:
        raise ValueError(
            f"the folder {str(folder)!r} and its subfolders hold no images: files that end with "
            f"{', '.join(sorted(SUFFIXES))} are read"
        )
    chosen = choose(len(files), count, seed, f"the folder {str(folder)!r}")
    return to_inputs(read_files([files[i] for i in chosen.tolist()], size), normalization)


def _is_sheet(source: object) -> bool:
    return (
        isinstance(source, str | os.PathLike)
        and Path(source).suffix.lower() == SUFFIX
        and not os.path.isdir(os.path.expanduser(source))
    )


def _folder(source: object) -> Path:
    if not isinstance(source, str | os.PathLike):
        raise ValueError(
            f"images of type {type(source).__name__} are not accepted: give {', '.join(DATASETS)}, "
            "a folder, an image sheet, a torch tensor or a NumPy array"
        )
    folder = Path(os.path.expanduser(source))
    if not os.path.isdir(folder):
        raise ValueError(
            f"unknown images {str(source)!r}: choose one of {', '.join(DATASETS)}, an image "
            f"sheet (.png), or an existing folder of images.{closest(str(source), DATASETS)}"
        )
    return folder
