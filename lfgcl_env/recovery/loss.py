"""The loss of recovery: how far a network's outputs and last maps are from its baseline's."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lfgcl_env.networks.outputs import holds_classes, named_outputs
from lfgcl_env.recovery.learned_outputs import find_learned

_TINY = 1e-12


class Distillation:
    """Compares a network with its baseline on a batch.

    Args:
        baseline: in evaluation mode; its weights are not trained.
        network: the pruned one.
        example: inputs on their device, of at least one image.
        temperature: that logits are divided by.
        features: weight of the maps' error.

    Raises:
        ValueError: if their outputs cannot be compared, see
            :func:`~lfgcl_env.recovery.learned_outputs.find_learned`.

    Attributes:
        place: the module whose maps are compared; None where there is none with positions that
            both networks have with the same channels.
    """

    def __init__(
        self,
        baseline: nn.Module,
        network: nn.Module,
        example: Tensor,
        *,
        temperature: float,
        features: float,
    ) -> None:
        self._baseline, self._network = baseline, network
        self._temperature, self._weight = temperature, features
        self._outputs = find_learned(baseline, network, example)
        self.place = _last_maps(baseline, network, example) if features else None

    def __call__(self, batch: Tensor) -> Tensor:
        """Return the loss of the network on a batch; a scalar with a gradient."""
        with torch.no_grad(), _captured(self._baseline, self.place) as wanted:
            targets = named_outputs(self._baseline(batch))
        with _captured(self._network, self.place) as found:
            outputs = named_outputs(self._network(batch))
        losses = [
            _output_loss(outputs[name].float(), targets[name].float(), self._temperature)
            for name in self._outputs
        ]
        loss = torch.stack(losses).mean()
        if self.place is not None:
            loss = loss + self._weight * _relative(found[0].float(), wanted[0].float())
        return loss


def _output_loss(output: Tensor, target: Tensor, temperature: float) -> Tensor:
    if not holds_classes(target.shape[1:]):
        return _relative(output, target)
    found, wanted = (
        F.log_softmax(logits.movedim(1, -1).flatten(0, -2) / temperature, dim=1)
        for logits in (output, target)
    )
    return F.kl_div(found, wanted, reduction="batchmean", log_target=True) * temperature**2


def _relative(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the squared error relative to the variance over images."""
    variance = (wanted - wanted.mean(0)).square().mean().clamp(min=_TINY)
    return (found - wanted).square().mean() / variance


@contextmanager
def _captured(network: nn.Module, place: str | None) -> Iterator[list[Tensor]]:
    """Collect what a module returns."""
    found: list[Tensor] = []
    if place is None:
        yield found
        return
    handle = network.get_submodule(place).register_forward_hook(
        lambda _, __, output: found.append(output)
    )
    try:
        yield found
    finally:
        handle.remove()


@torch.no_grad()
def _last_maps(baseline: nn.Module, network: nn.Module, example: Tensor) -> str | None:
    """Name the last module that returns maps of one shape in both networks."""
    shapes = [_shapes(one, example) for one in (baseline, network)]
    places: Sequence[str] = [
        name for name, shape in shapes[0].items() if shape and shapes[1].get(name) == shape
    ]
    return places[-1] if places else None


def _shapes(network: nn.Module, example: Tensor) -> dict[str, torch.Size | None]:
    """Map modules that return maps, in the order in which they end, to what comes out of them.

    A module that is called several times has no shape.
    """
    found: dict[str, torch.Size | None] = {}

    def note(name: str, output: object) -> None:
        if (
            isinstance(output, Tensor)
            and output.dim() > 2
            and output.numel()
            and output.shape[2:].numel() > 1
        ):
            found[name] = None if name in found else output.shape

    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: note(name, output))
        for name, module in network.named_modules()
        if name
    ]
    try:
        network(example)
    finally:
        for handle in handles:
            handle.remove()
    return found
