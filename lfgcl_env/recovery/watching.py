"""Images to train on, and others to watch what training does."""

from torch import Tensor

from lfgcl_env.images.views import make_views

WATCHED = 2048
"""Images that networks are compared on, where there are so many: at most an eighth of all."""

FEW = 4096
"""Images below which an epoch is made of views of them."""


def watch_some(images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Split images in those to train on and those to watch; of few, take views.

    No image is on both sides, whatever views are taken.

    Args:
        images: (images, ...), at least two.
        seed: of the views.

    Returns:
        Seven eighths of the images or more, and the first of them, at most ``WATCHED``.

    Raises:
        ValueError: if there is one image alone.

    >>> import torch
    >>> [len(part) for part in watch_some(torch.zeros(100, 3, 8, 8), seed=0)]
    [4096, 512]
    """
    if len(images) < 2:
        raise ValueError("recovery needs at least 2 images: some to train on and others to watch")
    count = min(WATCHED, max(1, len(images) // 8))
    train, watched = images[count:], images[:count]
    if len(train) < FEW and images.dim() == 4:
        train, watched = make_views(train, FEW, seed), make_views(watched, FEW // 8, seed + 1)
    return train, watched
