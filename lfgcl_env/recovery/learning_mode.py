"""The mode in which a network is trained on what its baseline returns in evaluation mode."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from lfgcl_env.networks.copying import copy_network, forget
from lfgcl_env.networks.draws import own_draws
from lfgcl_env.networks.outputs import named_outputs
from lfgcl_env.recovery.centring import learns

_RANDOM = ("DropPath", "StochasticDepth", "DropBlock2d")
"""Layers that leave something out at random, by their class's name; libraries have their own."""


class TrainingMode:
    """Sets a network to training, and back.

    Nothing is left out at random: the baseline's outputs are no more certain than they are without
    it. Frozen norms stay as they are. A network that returns something else in training, such as
    the outputs of auxiliary heads, is trained in evaluation mode but for its norms.

    Args:
        network: in evaluation mode.
        example: inputs on its device.
    """

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        self._network = network
        self._norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and learns(m)]
        self._still = [
            module
            for module in network.modules()
            if isinstance(module, _DropoutNd)
            or type(module).__name__ in _RANDOM
            or (isinstance(module, _BatchNorm) and not learns(module))
        ]
        self._whole = _returns_the_same(network, example)

    def enter(self) -> None:
        """Set the network to training."""
        if self._whole:
            self._network.train()
            for module in self._still:
                module.eval()
        else:
            forget(self._network)
            for norm in self._norms:
                norm.train()

    def leave(self) -> None:
        """Set the network to evaluation."""
        self._network.eval()


@torch.no_grad()
def _returns_the_same(network: nn.Module, example: Tensor) -> bool:
    """Whether a network returns as many outputs of the same shapes in training."""
    shapes = []
    for training in (False, True):
        own = copy_network(network).train(training)
        try:
            with own_draws():
                outputs = named_outputs(own(example))
        except Exception:  # a network's own, of a mode that nobody trains it in
            return False
        shapes.append({name: value.shape for name, value in outputs.items()})
    return shapes[0] == shapes[1]
