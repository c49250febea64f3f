"""Random crops of the photographs that scikit-image and scikit-learn ship."""

from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lfgcl_env.networks import IMAGENET

CALIBRATION = (
    "astronaut.png", "coffee.png", "motorcycle_left.png", "retina.jpg", "hubble_deep_field.jpg",
    "china.jpg",
)  # fmt: skip
"""Photographs that searches and repairs see crops of."""

HELD_OUT = ("chelsea.png", "rocket.jpg", "ihc.png", "flower.jpg")
"""Photographs of other things, to compare networks on."""

SMALLEST = 0.3
"""The side of the smallest crop, as a fraction of the photograph's shorter side."""


def crops(names: tuple[str, ...], count: int, side: int = 224, seed: int = 0) -> Tensor:
    """Return square crops of random size and place, half of them mirrored, for an ImageNet network.

    Args:
        names: of photographs; crops are drawn from each in turn.
        count: how many.
        side: of a crop, once it is resized, in pixels.
        seed: of the draw.

    Returns:
        Normalised inputs (count, 3, side, side).
    """
    draw = np.random.default_rng(seed)
    pictures = [_picture(name) for name in names]
    found = []
    for index in range(count):
        picture = pictures[index % len(pictures)]
        shorter = min(picture.shape[1:])
        size = int(draw.uniform(SMALLEST, 1) * shorter)
        top, left = (int(draw.integers(extent - size + 1)) for extent in picture.shape[1:])
        crop = picture[None, :, top : top + size, left : left + size]
        crop = F.interpolate(crop, (side, side), mode="bilinear", antialias=True)
        found.append(crop.flip(-1) if draw.random() < 0.5 else crop)
    mean, std = (
        torch.tensor(values)[None, :, None, None] for values in (IMAGENET.mean, IMAGENET.std)
    )
    return (torch.cat(found) - mean) / std


def folders() -> tuple[Path, Path]:
    """Return the folders of the photographs that scikit-image and scikit-learn ship.

    Raises:
        ImportError: if one of them is missing; names the extra to install.
    """
    try:
        import skimage
        import sklearn
    except ImportError as error:
        raise ImportError(
            f"the photographs need {error.name}: run `pip install lfgcl-env[photographs]`"
        ) from error
    return _folder(skimage) / "data", _folder(sklearn) / "datasets" / "images"


def _picture(name: str) -> Tensor:
    (path,) = (folder / name for folder in folders() if (folder / name).exists())
    pixels = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255
    return torch.from_numpy(pixels).movedim(-1, 0)


def _folder(package: ModuleType) -> Path:
    assert package.__file__ is not None
    return Path(package.__file__).parent
