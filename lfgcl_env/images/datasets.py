"""Data sets by name, as torchvision keeps them on disk."""

import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lfgcl_env.edge.choices import check_choice
from lfgcl_env.edge.quiet import one_at_a_time
from lfgcl_env.images.data_root import data_root

_KINDS: dict[str, tuple[tuple[int, ...], int]] = {
    "CIFAR10": ((3, 32, 32), 10),
    "CIFAR100": ((3, 32, 32), 100),
}  # the shape of an image, and the number of classes

DATASETS = tuple(_KINDS)


def dataset_for(shape: Sequence[int], classes: int | None) -> str | None:
    """Return the data set whose images and classes a network has; None if there is none.

    >>> dataset_for([3, 32, 32], 100), dataset_for((3, 64, 64), 100)
    ('CIFAR100', None)
    """
    wanted = (tuple(shape), classes)
    return next((name for name, known in _KINDS.items() if known == wanted), None)


class Split(NamedTuple):
    """The training or test images of a data set.

    Attributes:
        pixels: (images, channels, height, width), uint8.
        labels: (images,), int64.
    """

    pixels: Tensor
    labels: Tensor


def read_dataset(
    name: str,
    *,
    train: bool,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
) -> Split:
    """Read the training or the test images of a data set; its checksums are verified.

    Args:
        name: one of ``DATASETS``.
        train: training images, else test images.
        root: the folder of the data sets, see :func:`data_root`.
        download: download what is missing or damaged.

    Raises:
        ValueError: if the name is unknown.
        FileNotFoundError: if the data set is missing or damaged; the message says what to do.
        OSError: if it cannot be downloaded.
    """
    from torchvision import datasets

    check_choice(name, DATASETS, "data set")
    folder = data_root(root)
    reader: type[datasets.CIFAR10] = getattr(datasets, name)
    try:
        with one_at_a_time, redirect_stdout(sys.stderr):  # standard output is for results
            data = reader(folder, train=train, download=download)
    except (RuntimeError, ValueError) as error:
        found = os.path.exists(folder / reader.base_folder)
        raise FileNotFoundError(
            f"{name} is {'incomplete or damaged' if found else 'not'} in {str(folder)!r} (the "
            "folder is the argument root, else LFGCL_DATA, else ~/.cache/lfgcl/data): get it with "
            f'download=True, or python -c "import torchvision; torchvision.datasets.{name}('
            f"'{folder}', download=True)\""
        ) from error
    except OSError as error:
        if not download:
            raise
        raise OSError(
            f"cannot download {name} to {str(folder)!r} ({getattr(error, 'reason', error)}): "
            f"unpack {reader.url} there by hand"
        ) from error
    pixels = torch.from_numpy(np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)))
    return Split(pixels, torch.tensor(data.targets))
