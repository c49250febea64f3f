"""A small data set in CIFAR-10's files, for pages that need images but not their truth."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torchvision.datasets import CIFAR10

IMAGES = {name: 2_000 for name, _ in CIFAR10.train_list} | {"test_batch": 1_000}
"""How many images every file has; the real ones have 10,000."""


def write(root: Path) -> None:
    """Write the files of a data set where torchvision looks for CIFAR-10.

    Args:
        root: the folder of the data sets.
    """
    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    hues = draw.uniform(64, 192, (10, 3))
    contents: dict[str, Any] = {
        CIFAR10.meta["filename"]: {CIFAR10.meta["key"]: [f"class {label}" for label in range(10)]}
    }
    for name, count in IMAGES.items():
        labels = draw.integers(0, 10, count)
        data = patches(hues[labels], draw).reshape(count, -1)
        contents[name] = {"data": data, "labels": labels.tolist()}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))


def patches(hues: NDArray[np.float64], draw: np.random.Generator) -> NDArray[np.uint8]:
    """Draw images of 4 x 4 patches in shades of a hue, and noise over them.

    Args:
        hues: (images, 3), from 0 to 255.
        draw: the source of randomness.

    Returns:
        (images, 3, 32, 32).
    """
    coarse = hues[:, :, None, None] + draw.normal(0, 40, (len(hues), 3, 4, 4))
    pixels = coarse.repeat(8, axis=2).repeat(8, axis=3)
    return (pixels + draw.normal(0, 10, pixels.shape)).clip(0, 255).astype(np.uint8)


def checksums(root: Path) -> dict[str, Any]:
    """Return the attributes of torchvision's class by which it accepts what :func:`write` wrote."""

    def md5(name: str) -> str:
        content = (root / CIFAR10.base_folder / name).read_bytes()
        return hashlib.md5(content).hexdigest()

    lists = {
        kind: [[name, md5(name)] for name, _ in getattr(CIFAR10, kind)]
        for kind in ("train_list", "test_list")
    }
    return {**lists, "meta": CIFAR10.meta | {"md5": md5(CIFAR10.meta["filename"])}}
