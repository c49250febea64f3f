"""How much layers' outputs matter: their Fisher information, from a few backward passes.

A group that feeds several layers is ordered by the errors of all of them together. What an error is
worth differs: the classifier's outputs are the prediction, those of a block's first convolution are
a detail of a detail. The expected divergence of predictions that a small change of an output causes
is half its square times the Fisher information there: the mean squared gradient of the
log-likelihood of labels that are drawn from the predictions themselves. No real labels are needed.

Source: the diagonal of the Fisher matrix, by which Theis et al. (Fisher pruning, 2018) score
channels; here it weighs the exact errors of refitted layers instead of replacing them.
Predictions are softened by a temperature of 4, as where finished networks are compared.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lfgcl_env.networks.outputs import holds_classes, named_outputs
from lfgcl_env.networks.recording import recorded_copy, recording
from lfgcl_env.pruning.structure.layers import layer_sizes

_TEMPERATURE = 4.0
_IMAGES = 128
_AT_ONCE = 8  # images whose graph is held
_DRAWS = 4  # labels for every image


def output_weights(
    network: nn.Module, layers: Sequence[str], images: Tensor, *, seed: int = 0
) -> dict[str, Tensor]:
    """Measure how much every output channel of layers matters to the network's predictions.

    Args:
        network: in evaluation mode; not changed.
        layers: names of convolutions and linear layers.
        images: on the network's device, of which the first 128 are used.
        seed: of the drawn labels.

    Returns:
        For every layer the squared gradients of log-likelihoods, summed over positions and averaged
        over images; float64, (out,). The same number for all channels of all layers where no
        gradient comes through.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode(False):
        network = recorded_copy(network)
    running = recording(network, images[:1])
    totals: dict[str, Tensor] = {}
    for chunk in torch.split(images[:_IMAGES], _AT_ONCE):
        found = _squared_gradients(network, layers, chunk, generator, running)
        for name, squares in found.items():
            totals[name] = totals[name] + squares if name in totals else squares
    if not any(bool(total.any()) for total in totals.values()):
        return {name: torch.ones_like(total) for name, total in totals.items()}
    return {name: total / len(images[:_IMAGES]) for name, total in totals.items()}


@torch.inference_mode(False)
@torch.enable_grad()
def _squared_gradients(
    network: nn.Module,
    layers: Sequence[str],
    images: Tensor,
    generator: torch.Generator,
    running: AbstractContextManager[object],
) -> dict[str, Tensor]:
    """Sum squared gradients over images, positions and draws, per output channel."""
    outputs: dict[str, list[Tensor]] = {name: [] for name in layers}
    with ExitStack() as stack:
        for name in layers:
            hook = _keeper(outputs[name])
            stack.callback(network.get_submodule(name).register_forward_hook(hook).remove)
        stack.enter_context(running)
        returned = named_outputs(network(images.detach().clone().requires_grad_()))
    squares = {
        name: torch.zeros(_channels(network, name), dtype=torch.float64, device=images.device)
        for name in layers
    }
    found = [
        output
        for output in returned.values()
        if output.requires_grad and len(output) == len(images)
    ]
    if not found:
        return squares
    calls = [(name, one) for name in layers for one in outputs[name] if one.requires_grad]
    for _ in range(_DRAWS):
        drawn = [_draw(output.detach(), generator) for output in found]
        if len(found) > 1:
            drawn = [
                pull * _share(output.detach()) for pull, output in zip(drawn, found, strict=True)
            ]
        pulls = torch.autograd.grad(
            found,
            [output for _, output in calls],
            drawn,
            retain_graph=True,
            allow_unused=True,
        )
        for (name, _), pull in zip(calls, pulls, strict=True):
            if pull is not None:
                linear = isinstance(network.get_submodule(name), nn.Linear)
                by_channel = pull.movedim(-1 if linear else 1, 0).flatten(1)
                squares[name] += by_channel.double().square().sum(1) / _DRAWS
    return squares


def _keeper(kept: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """Return a hook that keeps outputs."""

    def keep(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()  # what follows may work in place

    return keep


def _channels(network: nn.Module, layer: str) -> int:
    return layer_sizes(network.get_submodule(layer))[0]


def _draw(output: Tensor, generator: torch.Generator) -> Tensor:
    """Return gradients of log-likelihoods of drawn labels, at an output; of its shape.

    In maps every pixel has a label. Numbers that are no classes are taken for means of Gaussians.
    """
    if not holds_classes(output.shape[1:]):
        drawn = torch.randn(output.shape, generator=generator)
        return drawn.to(output)
    logits = output.movedim(1, -1)
    rows = logits.reshape(-1, logits.shape[-1])
    # Activations that are not finite are refused later, in words.
    probabilities = F.softmax(rows.nan_to_num().float() / _TEMPERATURE, dim=1)
    labels = torch.multinomial(probabilities.cpu(), 1, generator=generator).to(output.device)
    pull = F.one_hot(labels[:, 0], rows.shape[1]) - probabilities
    return pull.view(logits.shape).movedim(-1, 1).to(output)


def _share(output: Tensor) -> float:
    """Return what an output's gradients are multiplied with, so that several count alike.

    The divergence of a prediction at a temperature T is 1 / (2 T^2) of the squared error that its
    Fisher information measures, averaged over pixels; of other numbers the squared error counts in
    units of their variance.
    """
    if holds_classes(output.shape[1:]):
        return float((2 * _TEMPERATURE**2 * output[0, 0].numel()) ** -0.5)
    deviations = output.double() - output.double().mean(dim=0)
    variance = float(deviations.square().sum()) / len(output)
    return float(max(variance, 1e-12) ** -0.5)
