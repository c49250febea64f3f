"""A network's layers: their kinds and sizes, and one record per convolution and linear layer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from lfgcl_env.pruning.structure.channel_norms import is_channel_norm
from lfgcl_env.pruning.structure.flop_formulas import more_formulas
from lfgcl_env.pruning.structure.head_counts import head_attributes, head_count, heads_of
from lfgcl_env.pruning.structure.step_by_step import StepByStep

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)

_COUNTS = (
    *("in_channels", "out_channels", "groups"),
    *("num_features", "num_channels", "num_groups", "num_parameters"),
)


@dataclass(frozen=True)
class Layer:
    """One convolution or linear layer of the baseline, measured on one input.

    Attributes:
        name: the module's name in ``network.named_modules()``.
        kind: ``"conv"``, ``"depthwise"``, ``"grouped"``, ``"transposed"`` or ``"linear"``; of a
            transposed convolution with groups one of the second and third.
        in_channels: input channels (features of a linear layer).
        out_channels: output channels.
        fan: input channels that one output channel sees (1 for a depthwise convolution).
        kernel: number of kernel positions (9 for a 3x3 convolution, 1 for a linear layer).
        stride: stride along the last dimension.
        positions: output positions per input (32 * 32 for a stride-1 convolution on CIFAR-10),
            summed over the calls where a network uses a layer more than once. Of a transposed
            convolution, which multiplies its kernel with every input position, these.
    """

    name: str
    kind: str
    in_channels: int
    out_channels: int
    fan: int
    kernel: int
    stride: int
    positions: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the layer for one input."""
        return self.kernel * self.positions * self.fan * self.out_channels


def layer_kind(module: nn.Module) -> str | None:
    """Return the kind of a layer with MACs, or None for every other module."""
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)):
        if module.groups == 1:
            return "transposed" if isinstance(module, TRANSPOSED) else "conv"
        if module.groups == module.in_channels == module.out_channels:
            return "depthwise"
        return "grouped"
    return None


def weight_axes(module: nn.Module) -> tuple[int, int]:
    """Return the dimensions of a layer's weight that hold its output and its input channels.

    With groups the first of both follows the output channels, see :func:`weight_rows`.
    """
    return (1, 0) if layer_kind(module) == "transposed" else (0, 1)


def weight_rows(module: nn.Module) -> int:
    """Return the length of the dimension of a layer's weight that follows its output channels.

    A transposed convolution with groups has its input channels there. They go with the outputs of
    their groups, in proportion.
    """
    transposed = isinstance(module, TRANSPOSED) and module.groups > 1
    return int(module.in_channels) if transposed else layer_sizes(module)[0]  # type: ignore[arg-type]


def is_frozen_norm(module: nn.Module) -> bool:
    """Whether a module has a BatchNorm's tensors as buffers, as torchvision's FrozenBatchNorm2d."""
    keys = {"weight", "bias", "running_mean", "running_var"}
    return not module._parameters and keys <= module._buffers.keys()


def is_channelwise(module: nn.Module) -> bool:
    """Whether every output channel follows from its own input channel, or its own group of them.

    Such layers lose channels exactly, a grouped one in whole groups.
    """
    if isinstance(module, nn.PReLU):
        return module.num_parameters > 1
    return (
        layer_kind(module) in ("depthwise", "grouped")
        or isinstance(module, (*BATCH_NORMS, *_INSTANCE_NORMS, nn.GroupNorm))
        or is_frozen_norm(module)
    )


def passes_channels(module: nn.Module) -> bool:
    """Whether a layer gives the channels that it gets, and loses them exactly.

    It is channelwise, or a norm over all channels together.
    """
    return is_channelwise(module) or is_channel_norm(module)


def channel_groups(module: nn.Module) -> int:
    """Return the groups of channels inside of which a channelwise layer mixes them, or 0."""
    if isinstance(module, nn.GroupNorm):
        return module.num_groups if module.num_groups > 1 else 0
    return int(module.groups) if layer_kind(module) == "grouped" else 0  # type: ignore[arg-type]


def channel_attributes(module: nn.Module) -> dict[str, str]:
    """Map the attributes of a module that count channels to the side that they follow.

    They are proportional to the channels on this side: ``"out"``, which is all there is of a layer
    that passes channels on, or ``"in"``. The channels of attention are its heads.
    """
    if is_channel_norm(module):
        return {"num_channels" if isinstance(module, nn.GroupNorm) else "normalized_shape": "out"}
    if is_channelwise(module):
        return {name: "out" for name in _COUNTS if isinstance(getattr(module, name, None), int)}
    if isinstance(module, nn.Linear):
        return {"in_features": "in", "out_features": "out"}
    if head_count(module):
        return dict.fromkeys(head_attributes(module), "out")
    return {"in_channels": "in", "out_channels": "out"}


def layer_sizes(module: nn.Module) -> tuple[int, int]:
    """Return a layer's output and input channels, also for one that passes channels on.

    The channels of attention are its heads.
    """
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if layer_kind(module):
        return int(module.out_channels), int(module.in_channels)  # type: ignore[arg-type]
    if head_count(module):
        return heads_of(module), heads_of(module)
    if is_frozen_norm(module):
        size = module.running_mean.numel()  # type: ignore[union-attr, operator]
    elif isinstance(module, nn.GroupNorm):
        size = module.num_channels
    elif is_channel_norm(module):
        (size,) = module.normalized_shape  # type: ignore[misc]
    else:
        size = getattr(module, "num_features", None) or getattr(module, "num_parameters", None)
    return int(size), int(size)  # type: ignore[arg-type]


def does_more(module: nn.Module) -> bool:
    """Whether hooks, or a forward of its own, may change what a module of a known type does."""
    return has_hooks(module) or "forward" in vars(module)


def has_hooks(module: nn.Module) -> bool:
    """Whether hooks see, and may change, what goes into a module or comes out."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def names_of(network: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return all names of every module by its first; one that is shared has several.

    >>> layer = nn.ReLU()
    >>> names_of(nn.Sequential(layer, layer))["0"]
    ('0', '1')
    """
    found: dict[nn.Module, list[str]] = {}
    for name, module in network.named_modules(remove_duplicate=False):
        found.setdefault(module, []).append(name)
    return {names[0]: tuple(names) for names in found.values()}


def measure_layers(network: nn.Module, example: Tensor) -> tuple[Layer, ...]:
    """Run ``example`` through the network and record its convolutions and linear layers.

    Args:
        network: in evaluation mode.
        example: inputs (images, channels, height, width); one image is enough.

    Returns:
        The layers in the order in which the network first uses them; unused ones are left out.
    """
    names = {module: name for name, module in network.named_modules()}
    positions: dict[nn.Module, int] = {}

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        sizes = layer_sizes(module)
        transposed = isinstance(module, TRANSPOSED)
        counted, channels = (inputs[0], sizes[1]) if transposed else (output, sizes[0])
        count = counted.numel() // (len(example) * channels)
        positions[module] = positions.get(module, 0) + count

    handles = [m.register_forward_hook(record) for m in network.modules() if layer_kind(m)]
    try:
        with torch.no_grad():  # it may keep what it computes, for autograd to follow later
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(_layer(names[module], module, count) for module, count in positions.items())


def count_macs(network: nn.Module, example: Tensor) -> int:
    """Count MACs of all that PyTorch's FLOP counter knows, for one input: half its FLOPs.

    Attention is run step by step: PyTorch's transformer layers have fused operations that are not
    counted. Products that it leaves out are in :mod:`lfgcl_env.pruning.structure.flop_formulas`.

    Args:
        network: in evaluation mode.
        example: inputs (images, channels, height, width).
    """
    with counting_flops() as counter:
        network(example)
    return int(counter.get_total_flops()) // (2 * len(example))


class _NoModules(ModuleTracker):
    """Tells modules not apart: the hooks that do would watch the modules of all threads."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


@contextmanager
def counting_flops() -> Iterator[FlopCounterMode]:
    """Count the FLOPs of what this thread runs inside the block, without gradients, in all.

    Attention runs step by step. Nothing is switched that other threads would notice.
    """
    counter = FlopCounterMode(display=False, custom_mapping=more_formulas())
    counter.mod_tracker = _NoModules()
    with torch.no_grad(), StepByStep(), counter:
        yield counter


def _layer(name: str, module: nn.Module, positions: int) -> Layer:
    kind = layer_kind(module)
    assert kind is not None
    if isinstance(module, nn.Linear):
        sizes = (module.in_features, module.out_features, module.in_features, 1, 1)
    else:
        assert isinstance(module, (*CONVOLUTIONS, *TRANSPOSED))
        sizes = (
            module.in_channels,
            module.out_channels,
            module.in_channels // module.groups,
            prod(module.kernel_size),
            int(module.stride[-1]),
        )
    return Layer(name, kind, *sizes, positions)
