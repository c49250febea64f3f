"""Converting uint8 pixels to network inputs."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lfgcl_env.networks import Normalization

Shape = tuple[int, ...]


def to_inputs(
    pixels: Tensor, normalization: Normalization | None, shape: Shape | None = None
) -> Tensor:
    """Scale pixels to [0, 1], resize and crop them if necessary, and normalise them.

    Args:
        pixels: (images, channels, height, width), uint8.
        normalization: None leaves the values in [0, 1].
        shape: (channels, height, width) to resize to; the shorter side is fitted and the centre
            cropped.

    Returns:
        (images, channels, height, width), float32.

    Raises:
        ValueError: if ``shape`` has another number of channels.
    """
    images = pixels.to(torch.float32) / 255
    if shape is not None and tuple(images.shape[1:]) != shape:
        images = _fit(images, shape)
    return images if normalization is None else normalization.apply(images)


def _fit(images: Tensor, shape: Shape) -> Tensor:
    channels, height, width = shape
    if images.shape[1] != channels:
        raise ValueError(
            f"the images have {images.shape[1]} channels, and the network takes {channels}"
        )
    scale = max(height / images.shape[2], width / images.shape[3])
    size = (
        max(height, round(images.shape[2] * scale)),
        max(width, round(images.shape[3] * scale)),
    )
    images = F.interpolate(images, size, mode="bilinear", antialias=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return images[:, :, top : top + height, left : left + width].contiguous()
