"""Copies of networks that begin anew."""

import copy
from collections.abc import Iterator
from typing import TypeVar

from torch import Tensor, nn

_Network = TypeVar("_Network", bound=nn.Module)


def copy_network(network: _Network) -> _Network:
    """Copy a network, without what it keeps of what it computed."""
    # PyTorch copies no tensors that were computed from parameters.
    memo = {id(tensor): tensor.detach().clone() for tensor in _computed(network)}
    return forget(copy.deepcopy(network, memo))


def forget(network: _Network) -> _Network:
    """Let a network drop what it keeps for inference, and return it.

    LeViT keeps the biases of its attention, for example, and would use them after its weights
    changed. Such networks drop it when they are set to training.
    """
    modes = [(module, module.training) for module in network.modules()]
    of_all = network.training
    network.train().train(of_all)
    for module, training in modes:
        module.training = training
    return network


def _computed(network: nn.Module) -> Iterator[Tensor]:
    """Yield tensors with a history that modules hold, also in lists and dictionaries."""
    waiting: list[object] = [
        value for module in network.modules() for value in vars(module).values()
    ]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            if not value.is_leaf:
                yield value
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
