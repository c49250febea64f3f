"""Images to train on, and others to watch what training does."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from lfgcl_env.recovery.batches import Batches
from lfgcl_env.recovery.recovery_options import RecoveryOptions

WATCHED = 2048
"""Images that networks are compared on, where there are so many: at most an eighth of all."""

_VIEWS, _ENOUGH = 16, 512
"""Views of an image at most, and how many of all together suffice."""


def watch_some(images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Split images in those to train on and those to watch.

    Args:
        images: (images, ...), at least three.
        seed: of the choice.

    Returns:
        Seven eighths of the images or more, and the others, at most ``WATCHED``.

    Raises:
        ValueError: if there are fewer.

    >>> [len(part) for part in watch_some(torch.zeros(100, 3, 8, 8), seed=0)]
    [88, 12]
    """
    if len(images) < 3:
        raise ValueError(
            f"recovery needs at least 3 images, some to train on and 2 to watch, got {len(images)}"
        )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    count = min(WATCHED, max(2, len(images) // 8))
    return images[order[count:]], images[order[:count]]


def views_of(images: Tensor, options: RecoveryOptions, seed: int) -> Tensor:
    """Return crops, flips and mixtures of images, to compare networks on.

    A repair fits its own images so closely that on them no trained network looks better, though it
    is on others. Their views are others.

    Args:
        images: normalised inputs, (images, ...).
        options: how far views differ from the images.
        seed: of the views.

    Returns:
        16 views of each image, or fewer where there are 512 of all together, but at least one.
    """
    rounds = max(1, min(_VIEWS, math.ceil(_ENOUGH / len(images))))
    batches = Batches(images, replace(options, batch_size=len(images), epoch_images=1, seed=seed))
    return torch.cat([batches(turn, 0, images.device) for turn in range(rounds)])
