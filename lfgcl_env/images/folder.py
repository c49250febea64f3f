"""Image files in a folder, read as pixels."""

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from lfgcl_env.edge.value_checks import first_line

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))
MODES = {1: "L", 3: "RGB"}


def image_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the image files in a folder and its subfolders, sorted, without hidden ones."""
    folder = Path(folder)
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def read_files(files: list[Path], shape: tuple[int, int, int]) -> Tensor:
    """Read images, each resized and centre-cropped to one size.

    Args:
        files: paths of images.
        shape: (channels, height, width); one channel is grey, three are red, green and blue.

    Returns:
        (files, channels, height, width), uint8.

    Raises:
        ValueError: if a file cannot be read as an image, or there are not 1 or 3 channels.
    """
    channels, height, width = shape
    if channels not in MODES:
        raise ValueError(
            f"image files have 1 or 3 channels, and the network takes {channels}: pass a tensor"
        )
    pixels = np.empty((len(files), channels, height, width), dtype=np.uint8)
    for index, path in enumerate(files):
        try:
            with Image.open(path) as image:
                fitted = ImageOps.fit(
                    image.convert(MODES[channels]), (width, height), Image.Resampling.BILINEAR
                )
        except Exception as error:  # Pillow's readers raise many kinds for damaged files
            reason = first_line(error)
            raise ValueError(f"{str(path)!r} cannot be read as an image ({reason})") from error
        values = np.asarray(fitted).reshape(height, width, channels)
        pixels[index] = values.transpose(2, 0, 1)
    return torch.from_numpy(pixels)
