"""Tensors and arrays as images: pixels in whole numbers, or inputs already normalised."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lfgcl_env.images.pixels import Shape, to_inputs
from lfgcl_env.networks import Normalization


class TooFewImages(ValueError):
    """There are fewer images than were asked for."""


def array_inputs(
    source: Tensor | np.ndarray[Any, Any],
    count: int | None,
    *,
    shape: Shape,
    normalization: Normalization | None,
    seed: int,
) -> Tensor:
    """Take network inputs from a tensor or array, which is never changed.

    Args:
        source: uint8 pixels, (images, channels, height, width) or (images, height, width,
            channels), which are normalised here; or floating-point inputs (images, channels,
            height, width), which are taken as they are.
        count: images wanted, drawn with ``seed``; None for all of them, in their order.
        shape: (channels, height, width) that the network takes.
        normalization: what the network was trained with, if known.
        seed: of the draw.

    Raises:
        ValueError: if shape or type do not fit, there are fewer than ``count``, values are not
            finite, or floating-point values look as if they were not normalised.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 and source.dtype.kind != "f":
            raise ValueError(_wrong_type(source.dtype))
        source = torch.from_numpy(np.array(source, dtype=source.dtype.newbyteorder("="), order="C"))
    if source.dtype != torch.uint8 and not source.is_floating_point():
        raise ValueError(_wrong_type(source.dtype))
    images = _channels_first(source.detach(), shape)
    images = images[choose(len(images), count, seed, "the tensor")].cpu()
    if images.dtype == torch.uint8:
        return to_inputs(images, normalization)
    images = images.to(torch.float32)
    _check_inputs(images, normalization)
    return images.contiguous()


def choose(available: int, count: int | None, seed: int, where: str) -> Tensor:
    """Draw ``count`` of ``available`` indices without repetition; a larger draw holds a smaller.

    Args:
        available: how many there are.
        count: how many are wanted; None for all, in their order.
        seed: of the draw.
        where: what holds the images, for errors.

    Returns:
        (count,), int64.

    Raises:
        TooFewImages: if there are fewer than ``count``.
    """
    if available < (count or 1):
        raise TooFewImages(f"{where} holds {available} images, and {count or 'some'} are needed")
    if count is None:
        return torch.arange(available)
    return torch.from_numpy(_shuffled(available, seed)[:count])


def choose_others(available: int, count: int, used: int, seed: int, where: str) -> Tensor:
    """Draw ``count`` indices that :func:`choose` does not when it draws ``used`` with this seed.

    They come from the far end of its order, so that a larger draw leaves them alone as well, as
    long as there are enough.

    Args:
        available: how many there are.
        count: how many are wanted.
        used: how many are drawn elsewhere, fewer than ``available``.
        seed: of the draw.
        where: what holds the images, for errors.

    Returns:
        (count,), int64.

    Raises:
        TooFewImages: if there are fewer than both draws need.
    """
    if used + count > available:
        raise TooFewImages(
            f"{where} holds {available} images, and {count} besides {used} others are needed"
        )
    return torch.from_numpy(_shuffled(available, seed)[-count:])


def _shuffled(available: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.random.default_rng(seed).permutation(available)


def _wrong_type(dtype: object) -> str:
    return f"images of type {dtype} are neither uint8 pixels nor floating-point network inputs"


def _channels_first(images: Tensor, shape: Shape) -> Tensor:
    channels, height, width = shape
    sizes = tuple(images.shape)
    if sizes[1:] == shape:
        return images
    if sizes[1:] == (height, width, channels) and images.dtype == torch.uint8:
        return images.permute(0, 3, 1, 2)
    raise ValueError(
        f"images of shape {sizes} do not fit the network: it takes (images, {channels}, {height}, "
        f"{width}), for uint8 pixels also (images, {height}, {width}, {channels})"
    )


def _check_inputs(images: Tensor, normalization: Normalization | None) -> None:
    if not images.isfinite().all():
        raise ValueError("the images have NaN or infinite values: network inputs must be finite")
    if normalization is None or normalization.trivial:
        return
    lowest, highest = images.min().item(), images.max().item()
    # Normalised images have values below zero, unless no pixel is darker than the mean.
    white = max((1 - m) / s for m, s in zip(normalization.mean, normalization.std, strict=True))
    if lowest >= 0 and (highest <= 1 or highest > white):
        raise ValueError(
            f"the images' values lie between {lowest:.3g} and {highest:.3g} and look as if they "
            f"were not normalised with mean {normalization.mean} and std {normalization.std}: "
            "pass uint8 pixels, or normalise them"
        )
