"""Images in chunks, each of which a network is run on at a time."""

from collections.abc import Iterable

import torch
from torch import Tensor


def chunks_of(images: Tensor, size: int) -> list[Tensor]:
    """Split images into chunks; a single last one joins the chunk before it.

    Some networks drop the dimension of images where there is one.

    >>> [len(chunk) for chunk in chunks_of(torch.zeros(9, 3), 4)]
    [4, 5]
    """
    if len(images) <= size + 1:
        return [images]
    last = len(images) % size
    chunks = list(torch.split(images, size))
    if last == 1:
        chunks[-2:] = [images[-size - 1 :]]
    return chunks


def first_of(batches: Iterable[Tensor], count: int) -> Tensor:
    """Return the first images of batches; all where there are fewer.

    >>> first_of([torch.zeros(4, 3), torch.ones(4, 3)], 6).sum(1)
    tensor([0., 0., 0., 0., 3., 3.])
    """
    found: list[Tensor] = []
    for batch in batches:
        found.append(batch[: count - sum(map(len, found))])
        if sum(map(len, found)) >= count:
            break
    return torch.cat(found)
