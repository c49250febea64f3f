"""More images out of few: mirrored and shifted views of them."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lfgcl_env.edge.value_checks import check_count
from lfgcl_env.images.arrays import check_memory

_REACH = 8
"""Views are shifted by at most this part of the height and width: 4 pixels of 32."""


def make_views(images: Tensor, count: int, seed: int) -> Tensor:
    """Return mirrored and shifted views of randomly chosen images.

    Half of them are mirrored left to right, and all are shifted by up to an eighth of their size;
    what comes in from outside is the image's own reflection.

    Args:
        images: (images, channels, height, width); other inputs are only chosen again.
        count: how many.
        seed: of choices, mirrors and shifts.

    Raises:
        ValueError: if they do not fit into memory.

    >>> make_views(torch.ones(2, 3, 8, 8), 5, seed=0).shape
    torch.Size([5, 3, 8, 8])
    """
    check_memory(check_count(count, "count"), images.shape[1:], "views")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(images), (count,), generator=generator)
    views = images[chosen]
    if images.dim() != 4:
        return views  # of inputs that are no images, choices alone
    mirrored = torch.rand(count, generator=generator) < 0.5
    views[mirrored] = views[mirrored].flip(-1)
    sizes = images.shape[2:]
    reach = [size // _REACH for size in sizes]
    margins = (reach[1], reach[1], reach[0], reach[0])
    for index, view in enumerate(views):
        padded = F.pad(view, margins, mode="reflect")
        top, left = (int(torch.randint(2 * most + 1, (), generator=generator)) for most in reach)
        views[index] = padded[:, top : top + sizes[0], left : left + sizes[1]]
    return views
