"""Following what a network computes where it hides that from autograd."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lfgcl_env.networks.copying import copy_network
from lfgcl_env.networks.outputs import named_outputs


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


def recording(
    network: nn.Module, inputs: Tensor | tuple[Tensor, ...]
) -> AbstractContextManager[object]:
    """Return :class:`Recorded` if autograd sees more layers in it, else what does nothing.

    It sees all layers of most networks as they are. A straight-through estimator detaches a
    correction that is to stay so, and what writes into parameters under ``no_grad`` fails if that
    is recorded.

    Args:
        network: in evaluation mode; not changed.
        inputs: of the network; one image is enough.
    """
    inputs = (inputs,) if isinstance(inputs, Tensor) else inputs
    plainly = _layers_seen(network, inputs, nullcontext())
    return Recorded() if _layers_seen(network, inputs, Recorded()) > plainly else nullcontext()


@torch.inference_mode(False)
@torch.enable_grad()
def _layers_seen(
    network: nn.Module, inputs: tuple[Tensor, ...], running: AbstractContextManager[object]
) -> int:
    """Count modules with parameters that outputs lead back to, and that lead back to inputs.

    Returns:
        Their sum; -1 if the network fails.
    """
    copied = recorded_copy(network)
    marks: dict[Any, nn.Module] = {}
    fed: set[nn.Module] = set()

    def mark(module: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
        if any(isinstance(one, Tensor) and one.requires_grad for one in given):
            fed.add(module)
        if not isinstance(output, Tensor):
            return None
        own = output.clone()  # a step of its own, which what works in place leaves alone
        if own.grad_fn is not None:
            marks[own.grad_fn] = module
        return own

    for module in copied.modules():
        if module._parameters:
            module.register_forward_hook(mark)
    try:
        with running:
            outputs = named_outputs(copied(*map(_followed, inputs)))
    except torch.OutOfMemoryError:
        raise
    except Exception:  # a network of one's own may raise anything
        return -1
    steps = steps_before([output.grad_fn for output in outputs.values()])
    return len({marks[step] for step in steps if step in marks}) + len(fed)


def _followed(given: Tensor) -> Tensor:
    """Copy an input for autograd to follow."""
    copied = given.detach().clone()
    return copied.requires_grad_() if copied.is_floating_point() else copied


def steps_before(steps: Sequence[Any]) -> set[Any]:
    """Return steps of autograd's graph and all that lead to them."""
    seen: set[Any] = set()
    left = list(steps)
    while left:
        step = left.pop()
        if step is not None and step not in seen:
            seen.add(step)
            left += [before for before, _ in step.next_functions]
    return seen


def recorded_copy(network: nn.Module) -> nn.Module:
    """Copy a network for autograd to follow, frozen parameters too."""
    copied = copy_network(network)
    for parameter in copied.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return copied
