"""Random crops and flips of unlabelled images, so that few of them teach a repair more."""

import torch
from torch import Tensor


def augment(
    images: Tensor, *, crops: int, flips: bool, copies: int, border: Tensor, seed: int
) -> Tensor:
    """Draw randomly cropped and mirrored copies of images, as the training of CIFAR networks does.

    Source: He et al. (CVPR 2016, section 4.2): four pixels of black around the image, a random crop
    of its old size, and its mirror image half of the time. Black is padded before images are
    normalised there. So is it here: what is padded is black as the network sees it, not zero,
    which is the mean colour of the data set.

    Args:
        images: normalised; (images, channels, height, width).
        crops: pixels of border on each side, from which crops may take up to all; 0 crops nothing.
        flips: mirror left and right, half of the time.
        copies: drawn of every image. With ``crops`` 0 and no ``flips`` they are all alike.
        border: the border's colour in the network's inputs; (channels,).
        seed: of the draws.

    Returns:
        (copies * images, channels, height, width): the first copies of all images, then the
        second ones, ...; ``images`` itself if nothing is asked for.

    Raises:
        ValueError: if ``images`` are no images.

    >>> image = torch.arange(4.0).reshape(1, 1, 2, 2)
    >>> options = dict(crops=0, flips=True, border=torch.zeros(1), seed=0)
    >>> augment(image, copies=2, **options).flatten().tolist()
    [1.0, 0.0, 3.0, 2.0, 0.0, 1.0, 2.0, 3.0]
    """
    if not crops and not flips and copies == 1:
        return images
    if images.dim() != 4:
        raise ValueError(
            "only images (images, channels, height, width) can be cropped and flipped, got inputs "
            f"of shape {tuple(images.shape)}: repair with crops=0 and flips=False"
        )
    count, _, height, width = images.shape
    total = copies * count
    draw = torch.Generator().manual_seed(seed)
    top, left = torch.randint(2 * crops + 1, (2, total, 1), generator=draw)
    mirrored = torch.rand(total, 1, generator=draw) < (0.5 if flips else 0.0)
    rows = top + torch.arange(height)
    columns = left + torch.arange(width)
    columns = torch.where(mirrored, columns.flip(1), columns)
    size = (count, len(border), height + 2 * crops, width + 2 * crops)
    padded = border.to(images)[:, None, None].expand(size).clone()
    padded[:, :, crops : crops + height, crops : crops + width] = images
    source = torch.arange(count).repeat(copies)
    index = [source[:, None, None], rows[:, :, None], columns[:, None, :]]
    picked = padded.movedim(1, -1)[tuple(i.to(images.device) for i in index)]
    return picked.movedim(-1, 1).contiguous()
