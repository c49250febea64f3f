"""Calling a network otherwise than its user does, until it is handed back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor, nn


class Feeding(Protocol):
    """How a network is called with one tensor, where it is not simply called."""

    def run(self, network: nn.Module, forward: Callable[..., Any], inputs: Tensor) -> Any:
        """Return what a network computes of inputs.

        Args:
            network: the module.
            forward: its own.
            inputs: one tensor, with an entry for every image.
        """

    def given(self, inputs: Tensor) -> Any:
        """Return inputs in the form in which a user calls the network with them."""


class _Fed:
    """Stands in for the forward of a network."""

    def __init__(self, network: nn.Module, feeding: Feeding) -> None:
        self.network, self.feeding = network, feeding
        self.own = vars(network).get("forward")

    def __call__(self, inputs: Tensor) -> Any:
        return self.feeding.run(self.network, self._forward, inputs)

    def _forward(self, *places: Any, **names: Any) -> Any:
        if self.own is not None:
            return self.own(*places, **names)
        return type(self.network).forward(self.network, *places, **names)


def feed(network: nn.Module, feeding: Feeding) -> None:
    """Let a network be called in this way, in place, until :func:`feed_plainly`."""
    if not is_fed(network):
        network.forward = _Fed(network, feeding)  # type: ignore[assignment]


def feed_plainly(network: nn.Module) -> nn.Module:
    """Let a network be called as its user does again, in place."""
    forward = vars(network).get("forward")
    if isinstance(forward, _Fed):
        del network.forward
        if forward.own is not None:
            network.forward = forward.own
    return network


def is_fed(network: nn.Module) -> bool:
    """Whether a network is called otherwise than its user does."""
    return isinstance(vars(network).get("forward"), _Fed)


@contextmanager
def plainly(network: nn.Module) -> Iterator[None]:
    """Let a network be called as its user does inside the block, if it is not."""
    forward = vars(network).get("forward")
    feed_plainly(network)
    try:
        yield
    finally:
        if isinstance(forward, _Fed):
            network.forward = forward  # type: ignore[assignment]


@contextmanager
def fed(network: nn.Module, feeding: Feeding | None) -> Iterator[None]:
    """Let a network be called in this way inside the block, if its baseline is."""
    if feeding is None or is_fed(network):
        yield
        return
    feed(network, feeding)
    try:
        yield
    finally:
        feed_plainly(network)
