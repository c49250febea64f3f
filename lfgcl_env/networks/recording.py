"""Following what a network computes where it hides that from autograd."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lfgcl_env.networks.copying import copy_network


class Recorded(TorchFunctionMode):
    """Lets autograd see what is computed under ``no_grad``, or behind ``detach``.

    Frozen backbones are called under ``no_grad``, and heads that are not to train what they read
    detach it. What feeds what is read from autograd's graph all the same.

    >>> with torch.enable_grad(), Recorded(), torch.no_grad():
    ...     torch.ones(1, requires_grad=True).detach().requires_grad
    True
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of PyTorch."""
        if func is torch._C._set_grad_enabled:
            return None
        if func in (Tensor.detach, torch.detach, Tensor.data.__get__):  # type: ignore[attr-defined]
            return args[0].clone()
        return func(*args, **(kwargs or {}))


def recording(network: nn.Module, inputs: Tensor) -> AbstractContextManager[object]:
    """Return :class:`Recorded`, or what does nothing if the network cannot be run in that.

    One that writes into what it computes without autograd's knowledge cannot.

    Args:
        network: in evaluation mode; not changed.
        inputs: of the network; one image is enough.
    """
    with torch.inference_mode(False), torch.enable_grad(), Recorded():
        try:
            copied = copy_network(network)
            copied(inputs.clone())
        except Exception:
            return nullcontext()
    return Recorded()


def recorded_copy(network: nn.Module) -> nn.Module:
    """Copy a network for autograd to follow, frozen parameters too."""
    copied = copy_network(network)
    for parameter in copied.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return copied
