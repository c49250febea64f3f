"""Images to train on, and others to watch what training does."""

import torch
from torch import Tensor

WATCHED = 2048
"""Images that networks are compared on, where there are so many: at most an eighth of all."""


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
