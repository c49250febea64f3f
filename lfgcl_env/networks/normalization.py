"""How a network wants its input channels shifted and scaled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lfgcl_env.edge.schema import short


@dataclass(frozen=True)
class Normalization:
    """Channel-wise mean and standard deviation, of images with values in [0, 1].

    Attributes:
        mean: one number per channel, subtracted.
        std: one positive number per channel, divided by.

    Raises:
        ValueError: if the two differ in length, are not finite, or a ``std`` is not positive.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the numbers, and make tuples of what came from JSON as lists."""
        for field in ("mean", "std"):
            object.__setattr__(self, field, tuple(float(value) for value in getattr(self, field)))
        numbers = (*self.mean, *self.std)
        if (
            not self.mean
            or len(self.mean) != len(self.std)
            or not all(math.isfinite(number) for number in numbers)
            or min(self.std) <= 0
        ):
            raise ValueError(
                f"mean {self.mean} and std {self.std} are no normalization: give one finite mean "
                "and one positive std for every channel"
            )

    @property
    def trivial(self) -> bool:
        """Whether it changes nothing: mean 0 and std 1."""
        return set(self.mean) == {0.0} and set(self.std) == {1.0}

    def apply(self, images: Tensor) -> Tensor:
        """Return ``(images - mean) / std``, channel by channel.

        Args:
            images: (..., channels, height, width), floating point, values in [0, 1].

        Raises:
            ValueError: if the images have another number of channels.
        """
        mean, std = self._as_tensors(images)
        return (images - mean) / std

    def undo(self, inputs: Tensor) -> Tensor:
        """Return ``inputs * std + mean``: what :meth:`apply` normalised.

        >>> half = Normalization((0.5,), (0.25,))
        >>> half.undo(half.apply(torch.full((1, 1, 1), 0.75)))
        tensor([[[0.7500]]])
        """
        mean, std = self._as_tensors(inputs)
        return inputs * std + mean

    def _as_tensors(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.ndim < 3 or images.shape[-3] != len(self.mean):
            raise ValueError(
                f"images of shape {tuple(images.shape)} do not have the {len(self.mean)} channels "
                "of this normalization: give (..., channels, height, width)"
            )
        mean = torch.tensor(self.mean, dtype=images.dtype, device=images.device)
        std = torch.tensor(self.std, dtype=images.dtype, device=images.device)
        return mean[:, None, None], std[:, None, None]


def as_normalization(
    value: "Normalization | Sequence[Sequence[float]] | None",
) -> Normalization | None:
    """Return ``value`` as a :class:`Normalization`; a pair is taken for ``(mean, std)``.

    Raises:
        ValueError: if it is neither a normalization nor a pair of sequences.

    >>> as_normalization(((0.5,), (0.25,)))
    Normalization(mean=(0.5,), std=(0.25,))
    """
    if value is None or isinstance(value, Normalization):
        return value
    try:
        mean, std = value
        return Normalization(tuple(mean), tuple(std))
    except (TypeError, OverflowError):
        pass
    except ValueError as error:
        if "no normalization" in str(error):
            raise
    raise ValueError(
        f"normalization {short(value)} is neither a Normalization nor a pair ((mean, ...), "
        "(std, ...))"
    )


IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
