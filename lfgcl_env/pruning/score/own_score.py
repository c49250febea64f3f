"""A user's own score of networks: any function, called with care."""

import math
import numbers
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lfgcl_env.edge.schema import short
from lfgcl_env.networks.feeding import Feeding, plainly
from lfgcl_env.networks.prepared import settle

Score = Callable[[nn.Module, Tensor], float]


class OwnScore:
    """Calls a function of a network and images, and checks what it returns.

    Args:
        name: for messages.
        function: takes a network, in evaluation mode on the device, and images; returns a finite
            number, the higher the better. It is called without gradients and must not depend on
            earlier calls.
        images: float (images, ...). Several inputs reach the function as they were given: a tuple,
            or a dictionary.
        device: where to compute.
        feeding: how its networks are called elsewhere, see :class:`~lfgcl_env.networks.Baseline`;
            the function gets networks and images as a user has them.
    """

    def __init__(
        self,
        name: str,
        function: Score,
        images: Tensor,
        device: torch.device,
        feeding: Feeding | None = None,
    ) -> None:
        self._name, self._function, self._device = name, function, device
        # A copy, so that a function that writes to its inputs cannot change somebody's images.
        copied = images.detach().to(device, copy=True)
        self._images: Any = copied if feeding is None else feeding.given(copied)

    def __call__(self, network: nn.Module) -> float:
        """Return the score of a network, which is copied if it is trained or elsewhere.

        Raises:
            ValueError: if the function fails, or returns anything but a finite number.
        """
        settled = ready(network, self._device)
        try:
            with torch.no_grad(), plainly(settled):
                value = self._function(settled, self._images)
        except Exception as error:  # somebody's own function may raise anything
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise ValueError(
                f"reward {self._name!r} failed ({short(what)}): it takes a network and images and "
                "returns a number"
            ) from error
        return _finite(value, self._name)


def ready(network: nn.Module, device: torch.device) -> nn.Module:
    """Return a network in evaluation mode on a device: itself if it is so, else a copy.

    Raises:
        ValueError: if it is none, or cannot be copied.
    """
    if not isinstance(network, nn.Module):
        raise ValueError(f"only a torch.nn.Module can be scored, got {short(network)}")
    return settle(network, device)


def name_of(function: Callable[..., Any]) -> str:
    """Return ``"module:name"`` of a function, or of the type of another callable.

    >>> name_of(math.fsum)
    'math:fsum'
    """
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def _finite(value: object, name: str) -> float:
    """Return a number, or a tensor or array that holds a single one, as a float."""
    single = isinstance(value, Tensor | np.ndarray) and math.prod(value.shape) == 1
    number: Any = value.item() if single else value  # type: ignore[attr-defined]
    if isinstance(number, numbers.Real) and not isinstance(number, bool):
        with suppress(OverflowError):  # a whole number beyond floats
            if math.isfinite(number):
                return float(number)
    raise ValueError(f"reward {name!r} must return a finite number, got {short(value)}")
