"""Image sheets: many small images in one lossless PNG, with their provenance."""

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from lfgcl_env.edge.files import write_beside
from lfgcl_env.edge.value_checks import first_line

SUFFIX = ".png"
_MODES = {1: "L", 3: "RGB"}
_NUMBER = re.compile("[0-9]{1,9}")
_SIZES = ("count", "channels", "height", "width")


def write_sheet(
    path: str | os.PathLike[str], pixels: Tensor, provenance: Mapping[str, object]
) -> None:
    """Write images as a grid in one PNG file.

    The grid is nearly square and filled row by row. One channel is grey, three are red, green and
    blue; with any other number every channel is a grey tile of its own. PNG text chunks hold the
    number of images, their size and the provenance.

    Args:
        path: the file; its folder must exist.
        pixels: (images, channels, height, width), uint8.
        provenance: how the images were made, by name.

    Raises:
        ValueError: if ``pixels`` are no images.
        OSError: if the file cannot be written; nothing half-written stays.
    """
    if pixels.ndim != 4 or pixels.dtype != torch.uint8 or not pixels.numel():
        raise ValueError(
            f"pixels of shape {tuple(pixels.shape)} and type {pixels.dtype} are no image sheet: "
            "give uint8 (images, channels, height, width)"
        )
    texts = PngInfo()
    sizes = dict(zip(_SIZES, pixels.shape, strict=True))
    for name, value in {**sizes, **provenance}.items():
        texts.add_text(name, str(value))
    picture = Image.fromarray(_grid(_tiles(pixels.cpu())))
    write_beside(
        Path(path), lambda partial: picture.save(partial, "PNG", pnginfo=texts, optimize=True)
    )


def read_sheet(path: str | os.PathLike[str]) -> tuple[Tensor, dict[str, str]]:
    """Read the images and the provenance of a sheet.

    Returns:
        Images (images, channels, height, width), uint8, and all text chunks by name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or is an image but no sheet.
    """
    path = Path(os.path.expanduser(path))
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no image sheet {str(path)!r}")
    try:
        with Image.open(path) as picture:
            picture.load()  # its text may stand after its pixels
            grid, texts = np.asarray(picture), dict(getattr(picture, "text", {}))
    except Exception as error:  # Pillow's readers raise many kinds for damaged files
        reason = first_line(error)
        raise ValueError(f"the image sheet {str(path)!r} cannot be read ({reason})") from error
    sizes = [int(texts[name]) for name in _SIZES if _NUMBER.fullmatch(texts.get(name, ""))]
    pixels = _images(grid, sizes) if len(sizes) == len(_SIZES) and min(sizes) > 0 else None
    if pixels is None:
        raise ValueError(
            f"{str(path)!r} is a picture, but no image sheet as `lfgcl synthesize` writes them: "
            "for pictures of your own give the folder they lie in"
        )
    return torch.from_numpy(pixels), texts


def _tiles(pixels: Tensor) -> np.ndarray:
    """Images as (tiles, height, width, 1 or 3)."""
    count, channels, height, width = pixels.shape
    if channels not in _MODES:
        pixels = pixels.reshape(count * channels, 1, height, width)
    return pixels.permute(0, 2, 3, 1).numpy()


def _grid(tiles: np.ndarray) -> np.ndarray:
    """Tiles (tiles, height, width, 1 or 3) side by side: (rows, columns) or (rows, columns, 3)."""
    count, height, width, channels = tiles.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    padded = np.zeros((rows * columns, height, width, channels), np.uint8)
    padded[:count] = tiles
    grid = padded.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    grid = grid.reshape(rows * height, columns * width, channels)
    return np.ascontiguousarray(grid[..., 0] if channels == 1 else grid)


def _images(grid: np.ndarray, sizes: list[int]) -> np.ndarray | None:
    """Undo :func:`_grid` and :func:`_tiles`; None if the grid does not have these sizes."""
    count, channels, height, width = sizes
    depth = channels if channels in _MODES else 1
    tiles = count * channels // depth
    columns = math.ceil(math.sqrt(tiles))
    rows = math.ceil(tiles / columns)
    shape = (rows * height, columns * width)
    if grid.dtype != np.uint8 or grid.shape != (shape if depth == 1 else (*shape, depth)):
        return None
    split = grid.reshape(rows, height, columns, width, depth).swapaxes(1, 2)
    split = split.reshape(rows * columns, height, width, depth)[:tiles].transpose(0, 3, 1, 2)
    # A copy, because the view of a single image is read-only.
    return np.array(split, order="C").reshape(count, channels, height, width)
