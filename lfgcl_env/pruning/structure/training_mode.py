"""What a network does in training only, such as auxiliary heads."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lfgcl_env.edge.value_checks import with_kind
from lfgcl_env.networks.copying import copy_network
from lfgcl_env.networks.draws import own_draws
from lfgcl_env.networks.outputs import named_outputs
from lfgcl_env.pruning.structure.layers import BATCH_NORMS, layer_kind

_RANDOM_OR_COUNTING = (*BATCH_NORMS, nn.modules.dropout._DropoutNd)


def set_training(network: nn.Module) -> None:
    """Put a network into training, but for dropout and the statistics of its BatchNorms."""
    network.train()
    for module in network.modules():
        if isinstance(module, _RANDOM_OR_COUNTING):
            module.eval()


def run_training(network: nn.Module, inputs: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Return what a copy of a network gives in training, by name, with draws from a seed."""
    trained = copy_network(network)
    set_training(trained)
    with torch.no_grad(), own_draws(seed):
        return named_outputs(trained(inputs))


@dataclass(frozen=True)
class TrainingOnly:
    """What a network runs in training, and not in evaluation.

    Attributes:
        heads: names of the outermost modules that hold layers, all of them for training only.
        failure: why the network cannot be run in training, or None. If it cannot, the heads are
            those that it ran, or tried to, before it failed.
    """

    heads: tuple[str, ...]
    failure: str | None


def find_training_only(network: nn.Module, inputs: Tensor) -> TrainingOnly:
    """Find the layers that a network runs in training, and not in evaluation.

    Args:
        network: in evaluation mode; not changed.
        inputs: (images, channels, height, width).
    """
    copied = copy_network(network)
    names = {module: name for name, module in copied.named_modules()}
    run: set[str] = set()
    for module in copied.modules():
        if any(layer_kind(inner) for inner in module.modules()):
            # Before the call: the one that fails is among them.
            module.register_forward_pre_hook(lambda module, _: run.add(names[module]))
    with torch.no_grad():
        copied(inputs)
    in_evaluation, failure = set(run), None
    run.clear()
    set_training(copied)
    with torch.no_grad(), own_draws():
        try:
            copied(inputs)
        except Exception as error:
            failure = with_kind(error)
    only = [name for name in names.values() if name in run - in_evaluation]
    heads = tuple(n for n in only if not any(n.startswith(f"{outer}.") for outer in only))
    return TrainingOnly(heads, failure)
