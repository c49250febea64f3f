"""Networks that take several tensors: packed to one row per image, and unpacked inside the call.

All that samples, splits and runs images then deals with one tensor, whatever a network takes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.edge.schema import short

Shape = tuple[int, ...]

Several = Sequence[Tensor | NDArray[Any]] | Mapping[str, Tensor | NDArray[Any]]
"""Inputs in the order of a network's arguments, or by their names; one entry for every image."""

_WHOLE = (torch.int64, torch.int32, torch.bool)
_LARGEST = 2**24
"""Whole numbers up to this are exact in float32."""


@dataclass(frozen=True)
class Part:
    """One of several inputs.

    Attributes:
        name: of the argument; None for one that goes by its place.
        shape: for one image; ``()`` for a number.
        dtype: that the network gets; floating-point inputs get that of its weights.
        low: smallest value.
        high: largest value; whole numbers beyond, as in noise, are taken for it.
    """

    name: str | None
    shape: Shape
    dtype: torch.dtype
    low: float
    high: float

    @property
    def numbers(self) -> int:
        """How many numbers an image has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Packing:
    """How several inputs lie in one row of numbers per image.

    Attributes:
        parts: one after the other.

    >>> images = {"pixels": torch.zeros(5, 3, 8, 8), "mask": torch.ones(5, 8, 8).bool()}
    >>> packing = Packing.of(images)
    >>> packing.pack(images).shape, packing.given(packing.pack(images))["mask"].dtype
    (torch.Size([5, 256]), torch.bool)
    """

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, images: Several) -> "Packing":
        """Read the names, shapes and types of inputs.

        Raises:
            ValueError: if they are no tensors or arrays of as many entries, of floating-point or
                whole numbers.
        """
        named = _named(images)
        lengths = {len(tensor) if tensor.dim() else 0 for _, tensor in named}
        if len(lengths) != 1 or lengths == {0}:
            shapes = ", ".join(str(tuple(tensor.shape)) for _, tensor in named[:3])
            if len(named) > 3:
                shapes += f" and {len(named) - 3} more"
            raise ValueError(
                "several inputs need one entry for every image each, along their first "
                f"dimension, got shapes {shapes}"
            )
        return cls(tuple(_part(name, tensor) for name, tensor in named))

    @property
    def shape(self) -> Shape:
        """Shape of one packed row."""
        return (sum(part.numbers for part in self.parts),)

    def __str__(self) -> str:
        """Name what one image consists of."""
        return ", ".join(f"{p.name or place}: {p.shape}" for place, p in enumerate(self.parts))

    def facts(self) -> list[dict[str, Any]]:
        """Return the inputs' names, shapes and types; JSON-able."""
        types = [str(part.dtype).removeprefix("torch.") for part in self.parts]
        return [
            {"name": part.name, "shape": list(part.shape), "dtype": dtype}
            for part, dtype in zip(self.parts, types, strict=True)
        ]

    def pack(self, images: Several) -> Tensor:
        """Pack inputs of the same names and shapes; float32, (images, numbers).

        Raises:
            ValueError: if they are others.
        """
        other = Packing.of(images)
        mine, theirs = ([(p.name, p.shape) for p in one.parts] for one in (self, other))
        if mine != theirs:
            raise ValueError(f"the network takes inputs ({self}), got ({other})")
        rows = [tensor.detach().cpu().flatten(1) for _, tensor in _named(images, flat=True)]
        return torch.cat([row.to(torch.float32) for row in rows], dim=1)

    def unpack(self, packed: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return the arguments of a network, those by place and those by name."""
        places: list[Tensor] = []
        names: dict[str, Tensor] = {}
        start = 0
        for part in self.parts:
            end = start + part.numbers
            value = packed[:, start:end].reshape((-1, *part.shape))
            start = end
            if not part.dtype.is_floating_point:
                value = value.nan_to_num(part.low).round().clamp(part.low, part.high)
                value = value.to(part.dtype)
            if part.name is None:
                places.append(value)
            else:
                names[part.name] = value
        return places, names

    def run(self, network: nn.Module, forward: Callable[..., Any], packed: Tensor) -> Any:
        """Return what a network computes of packed inputs."""
        places, names = self.unpack(packed)
        return forward(*places, **names)

    def given(self, packed: Tensor) -> tuple[Tensor, ...] | dict[str, Tensor]:
        """Return inputs in the form in which they were given: a tuple or a dictionary."""
        places, names = self.unpack(packed)
        return names or tuple(places)


def is_several(images: object) -> bool:
    """Whether images are several inputs, and not one tensor, array, or source's name."""
    return isinstance(images, tuple | list | Mapping)


def pack_inputs(packing: Packing | None, images: Any, what: str) -> Any:
    """Return several inputs packed, as a network takes them, and all others as they are.

    Args:
        packing: of the network; None for one input.
        images: several inputs, packed ones, or anything else.
        what: names the network in errors.

    Raises:
        ValueError: if the network takes one tensor, or others.
    """
    if not is_several(images):
        return images
    if packing is None:
        raise ValueError(
            f"{what} was loaded to take one tensor, got {len(images)} inputs: give the network "
            "itself and all its inputs together"
        )
    return packing.pack(images)


def _named(images: Several, *, flat: bool = False) -> list[tuple[str | None, Tensor]]:
    """Return inputs as tensors with names or None; numbers get a dimension where ``flat``."""
    items: list[tuple[Any, Any]]
    items = list(images.items()) if isinstance(images, Mapping) else [(None, i) for i in images]
    for name, value in items:
        if not (name is None or (isinstance(name, str) and name.isidentifier())):
            raise ValueError(f"inputs are named by a network's arguments, got {short(name)}")
        if not isinstance(value, Tensor | np.ndarray):
            raise ValueError(
                f"images in a tuple or dictionary must be tensors or arrays, got {short(value)}"
            )
    if not items:
        raise ValueError("at least one input is needed, got none")
    found = [(name, torch.as_tensor(value)) for name, value in items]
    return [(name, t[:, None] if flat and t.dim() == 1 else t) for name, t in found]


def _part(name: str | None, tensor: Tensor) -> Part:
    what = "an input" if name is None else f"input {name!r}"
    if not (tensor.is_floating_point() or tensor.dtype in _WHOLE):
        raise ValueError(
            f"{what} is of type {tensor.dtype}: give floating-point numbers, normalised as the "
            "network expects, or int64, int32 or bool"
        )
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{what} holds NaN or infinite values")
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    low, high = (float(bound) for bound in torch.aminmax(tensor.to(torch.float64)))
    if not dtype.is_floating_point and max(-low, high) > _LARGEST:
        raise ValueError(f"{what} has whole numbers beyond {_LARGEST:,}, which would be rounded")
    return Part(name, tuple(tensor.shape[1:]), dtype, low, high)
