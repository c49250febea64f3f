"""Tensors and arrays as images: uint8 pixels, or inputs that are normalised already."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lfgcl_env.images.pixels import Shape, to_inputs
from lfgcl_env.networks import Normalization

LARGEST_BATCH = 2**29
"""Most numbers in images that are made: 2 GiB."""


_CHANNELS = (1, 3, 4)  # of pixels


class TooFewImages(ValueError):
    """Fewer images than requested."""


def array_inputs(
    source: Tensor | np.ndarray[Any, Any],
    count: int | None,
    *,
    shape: Shape,
    normalization: Normalization | None,
    seed: int,
) -> Tensor:
    """Convert a tensor or array to network inputs; it is never changed.

    Args:
        source: uint8 pixels, (images, channels, height, width) or (images, height, width,
            channels), which are normalised here; or floating-point inputs (images, ...), which
            must be normalised already.
        count: images wanted, drawn with ``seed``; None for all of them, in their order.
        shape: of one input of the network, such as (channels, height, width).
        normalization: what the network was trained with, if known.
        seed: of the draw.

    Raises:
        ValueError: if shape or type do not fit, there are fewer than ``count``, values are not
            finite, the tensor is sparse or quantised, or floating-point values look as if they
            were not normalised.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 and source.dtype.kind != "f":
            raise ValueError(_wrong_type(source.dtype))
        # PyTorch has neither other byte orders nor floats of more than 64 bits.
        wide = source.dtype.kind == "f" and source.dtype.itemsize > 8
        dtype = np.dtype(np.float64) if wide else source.dtype.newbyteorder("=")
        source = torch.from_numpy(np.array(source, dtype=dtype, order="C"))
    if source.layout != torch.strided or source.is_quantized or source.device.type == "meta":
        raise ValueError(
            f"images in a tensor of layout {source.layout} and type {source.dtype} on "
            f"{source.device.type!r} are not accepted: give a dense tensor with values"
        )
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
    """Draw indices without repetition; a larger draw begins with a smaller one.

    Args:
        available: number of images.
        count: number of indices; None for all, in their order.
        seed: of the draw.
        where: the source of the images, for errors.

    Returns:
        (count,), int64.

    Raises:
        TooFewImages: if there are fewer than ``count``.
    """
    if available < (count or 1):
        raise TooFewImages(f"{where} holds {available} images, and {count or 'some'} are needed")
    if count is None:
        return torch.arange(available)
    return torch.from_numpy(_shuffle(available, seed)[:count])


def choose_others(available: int, count: int, used: int, seed: int, where: str) -> Tensor:
    """Draw ``count`` indices that are not among the ``used`` ones of :func:`choose`.

    They are the last in its order, so that larger draws of it do not overlap either, as long as
    there are enough images.

    Args:
        available: number of images.
        count: number of indices.
        used: number of indices that :func:`choose` draws with the same seed.
        seed: of both draws.
        where: the source of the images, for errors.

    Returns:
        (count,), int64.

    Raises:
        TooFewImages: if there are fewer than both draws need.
    """
    if used + count > available:
        raise TooFewImages(
            f"{where} holds {available} images, and {count} besides {used} others are needed"
        )
    return torch.from_numpy(_shuffle(available, seed)[-count:])


def _shuffle(available: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.random.default_rng(seed).permutation(available)


def _wrong_type(dtype: object) -> str:
    return f"images of type {dtype} are neither uint8 pixels nor floating-point network inputs"


def _channels_first(images: Tensor, shape: Shape) -> Tensor:
    sizes, pixels = tuple(images.shape), images.dtype == torch.uint8
    if pixels and len(shape) != 3:
        raise ValueError(
            f"uint8 pixels are images (channels, height, width), and the network takes inputs of "
            f"shape {shape}: give floating-point inputs"
        )
    if sizes[1:] == shape:
        return images
    if pixels and sizes[1:] == (*shape[1:], shape[0]):
        return images.permute(0, 3, 1, 2)
    also = f" or, for pixels, {(*shape[1:], shape[0])}" if pixels else ""
    raise ValueError(
        f"images of shape {sizes[1:]} do not fit the network, whose input_shape is {shape}{also}: "
        "give images of this shape, or the input_shape that they have"
    )


def shape_of(source: Tensor | np.ndarray[Any, Any]) -> Shape | None:
    """Return the shape of one input in a tensor or array; None if it holds no inputs.

    Of uint8 pixels (images, height, width, channels) the channels are known by their number.

    >>> shape_of(torch.zeros(5, 3, 64, 48)), shape_of(torch.zeros(5, 64, 48, 3).byte())
    ((3, 64, 48), (3, 64, 48))
    """
    shape = tuple(source.shape[1:])
    pixels = source.dtype in (torch.uint8, np.dtype(np.uint8))
    if pixels and len(shape) == 3 and shape[-1] in _CHANNELS and shape[0] not in _CHANNELS:
        return (shape[-1], *shape[:-1])
    return shape or None


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


def check_memory(count: int, shape: Sequence[int], what: str) -> None:
    """Refuse to make more images than fit into memory beside copies of them.

    Args:
        count: how many are to be made.
        shape: of one image.
        what: names them in the error.

    Raises:
        ValueError: if they hold more than 2 GiB of numbers.

    >>> check_memory(10**6, (3, 32, 32), "views")
    Traceback (most recent call last):
        ...
    ValueError: 1000000 views of shape (3, 32, 32) do not fit into memory: at most 174762 are ...
    """
    most = LARGEST_BATCH // math.prod(shape)
    if count > most:
        raise ValueError(
            f"{count} {what} of shape {tuple(shape)} do not fit into memory: at most {most} are "
            "accepted"
        )
