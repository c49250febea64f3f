"""A candidate: one private copy of the baseline, cut anew for every strategy without a deepcopy."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from math import prod
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.networks.copying import copy_network, forget
from lfgcl_env.pruning.structure.channel_norms import is_channel_norm
from lfgcl_env.pruning.structure.emptied import places_of, put, stand_in
from lfgcl_env.pruning.structure.head_counts import head_axes, head_count
from lfgcl_env.pruning.structure.layers import (
    BATCH_NORMS,
    channel_attributes,
    layer_sizes,
    weight_axes,
)
from lfgcl_env.pruning.structure.slice_plan import LayerSlices, SlicePlan

Statistics = dict[str, tuple[Tensor, Tensor]]
"""Mean and biased variance of every BatchNorm's input, by module name."""

_FORWARDS = {kind.forward for kind in BATCH_NORMS}


class Solver(Protocol):
    """Computes the weights of layers that lost input channels."""

    def __contains__(self, layer: str) -> bool:
        """Whether it has weights for a layer."""

    def __call__(self, layer: str, kept: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return the weight (out, kept, ...) and bias (out,) for the inputs at ``kept``."""

    def rescale(self, norm: str, kept: NDArray[np.int64]) -> tuple[float, float]:
        """Return how what a norm over channels gives is to change, before its weight and bias.

        Args:
            norm: its name.
            kept: the channels that it knows, at least one.

        Returns:
            A factor, and what is added behind it.
        """


class Candidate:
    """A network that becomes the pruned network of any strategy by replacing sliced tensors.

    Layers that lose all their outputs or inputs are replaced themselves, see
    :mod:`lfgcl_env.pruning.structure.emptied`, until they have some again.

    Args:
        network: the baseline in evaluation mode; copied, never changed.
        plan: its slice plan.
        device: where the copy lives.
        dtype: floating-point type of the copy; None keeps the baseline's.
        layout: of the copy's 4-D weights, see :func:`fastest_layout`.

    Attributes:
        solver: computes the weights of layers that lost input channels; None keeps the baseline's.
            To be set before the first strategy is installed.
        followed_by: for layers without a bias, the BatchNorm that takes over the solver's.
    """

    def __init__(
        self,
        network: nn.Module,
        plan: SlicePlan,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        layout: torch.memory_format = torch.channels_last,
    ) -> None:
        self.plan = plan
        self.layout = layout
        self.network = copy_network(network).eval().to(device=device, dtype=dtype)
        self.network.requires_grad_(False)
        for tensor in self.network.parameters():
            if tensor.dim() == 4:  # not a new parameter: several modules may share it
                tensor.data = tensor.data.contiguous(memory_format=layout)
        self._norms = {
            name: module
            for name, module in self.network.named_modules()
            if isinstance(module, BATCH_NORMS)
        }
        self._modules = {name: self.network.get_submodule(name) for name in plan.layers}
        places = places_of(self.network)
        self._places = {name: places.get(m, []) for name, m in self._modules.items()}
        # Before any cut: a depthwise convolution cut to one channel looks like any other.
        self._sizes = {name: Sizes(module) for name, module in self._modules.items()}
        self._weight_axes = {name: weight_axes(module) for name, module in self._modules.items()}
        self._axes = {n: head_axes(m) for n, m in self._modules.items() if head_count(m)}
        self._originals = {
            name: {key: t for key, t in _tensors(module) if self._is_cut(name, key, t)}
            for name, module in self._modules.items()
        }
        self._installed: dict[str, tuple[bytes, ...]] = {}
        self._means = {name: norm.running_mean for name, norm in self._norms.items()}
        self.solver: Solver | None = None
        self.followed_by: dict[str, str] = {}

    @torch.no_grad()
    def install(self, kept: Sequence[NDArray[np.int64]]) -> None:
        """Cut every layer to the channels in ``kept``; layers that are cut so already stay.

        Args:
            kept: for each group, the indices of the channels that stay.
        """
        mask = self.plan.mask(kept)
        marks = [np.sort(channels).tobytes() for channels in kept]
        changed = set()
        for name, slices in self.plan.layers.items():
            signature = tuple(marks[g] for g in slices.groups)
            if self._installed.get(name) != signature:
                self._cut(name, slices, mask)
                self._installed[name] = signature
                changed.add(name)
        if changed:
            forget(self.network)
        if self.solver is not None:
            for name, norm in self.followed_by.items():
                if name in self.solver and changed & {name, norm}:
                    self._shift_mean(name, norm, mask)

    def _is_cut(self, name: str, key: str, tensor: Tensor) -> bool:
        """Whether a tensor of a layer has channels, or of attention a row for each head."""
        return key in self._axes[name] if name in self._axes else tensor.dim() > 0

    def _cut(self, name: str, slices: LayerSlices, mask: NDArray[np.bool_]) -> None:
        module = self._modules[name]
        out = slices.out.kept(mask) if slices.out else None
        into = slices.into.kept(mask) if slices.into else None
        rows = slices.rows.kept(mask) if slices.rows else None
        empty = any(kept is not None and not len(kept) for kept in (out, into))
        if empty and name not in self._axes:
            put(self._stand_in(name, out, into), self._places[name])
            return
        put(module, self._places[name])
        tensors = self._originals[name]
        outputs, inputs = self._weight_axes[name]
        if into is not None and self.solver is not None and name in self.solver:
            weight, bias = self.solver(name, into)
            tensors = {"weight": weight, "bias": bias} if "bias" in tensors else {"weight": weight}
        elif into is not None:
            chosen = torch.from_numpy(into)
            tensors = {
                key: tensor.index_select(inputs, chosen.to(tensor.device))
                if key == "weight"
                else tensor
                for key, tensor in tensors.items()
            }
        elif out is not None and self.solver is not None and is_channel_norm(module):
            tensors = _changed(tensors, *self.solver.rescale(name, out))
        for key, tensor in tensors.items():
            if out is not None:
                axis, kept = (outputs, rows) if key == "weight" else (0, out)
                if name in self._axes:
                    axis = self._axes[name][key]
                tensor = tensor.index_select(axis, torch.from_numpy(kept).to(tensor.device))
            self._replace(module, key, tensor)
        self._sizes[name].set(
            None if out is None else len(out), None if into is None else len(into)
        )

    def _stand_in(
        self, name: str, out: NDArray[np.int64] | None, into: NDArray[np.int64] | None
    ) -> nn.Module:
        """Return what replaces a layer without outputs, or one without inputs."""
        layer = self._modules[name]
        if out is not None and not len(out):
            return stand_in(layer, 0)
        assert into is not None
        tensors = self._originals[name]
        bias = tensors.get("bias", tensors["weight"].new_zeros(len(tensors["weight"])))
        if self.solver is not None and name in self.solver:
            bias = self.solver(name, into)[1]
        if out is not None:
            bias = bias.index_select(0, torch.from_numpy(out).to(bias.device))
        return stand_in(layer, len(bias), bias, self.layout)

    def _replace(self, module: nn.Module, key: str, tensor: Tensor) -> None:
        if tensor.dim() == 4:
            tensor = tensor.contiguous(memory_format=self.layout)
        replace_tensor(module, key, tensor)

    def _shift_mean(self, layer: str, norm: str, mask: NDArray[np.bool_]) -> None:
        """Subtract the solver's bias of a layer that has none from its BatchNorm's mean.

        A layer without inputs is a constant, which has a bias.
        """
        into = self.plan.layers[layer].into
        shifted = self._means[norm]
        if into is None or shifted is None or self._modules[layer].bias is not None:
            return
        kept_inputs = into.kept(mask)
        if len(kept_inputs):
            assert self.solver is not None
            shifted = shifted - self.solver(layer, kept_inputs)[1]
        slices = self.plan.layers.get(norm)
        if slices is not None and slices.out is not None:
            kept = torch.from_numpy(slices.out.kept(mask))
            shifted = shifted.index_select(0, kept.to(shifted.device))
        self._norms[norm].running_mean = shifted

    @contextmanager
    def reestimating(self) -> Iterator[Statistics]:
        """Normalise by the statistics of each batch inside the block, as BatchNorms in training.

        Yields:
            A dictionary that every forward pass inside the block fills with these statistics. The
            running statistics are neither used nor changed.
        """
        statistics: Statistics = {}
        with ExitStack() as stack:
            for name, norm in self._norms.items():
                if type(norm).forward in _FORWARDS and "forward" not in vars(norm):
                    norm.forward = partial(_normalise_by_batch, norm, name, statistics)  # type: ignore[assignment]
                    stack.callback(delattr, norm, "forward")
                else:  # such as timm's, with an activation
                    note = partial(_note_statistics, name, statistics)
                    stack.callback(norm.register_forward_pre_hook(note).remove)
                    stack.enter_context(self.with_statistics({name: (None, None)}))
            yield statistics

    @contextmanager
    def with_statistics(
        self, statistics: Mapping[str, tuple[Tensor | None, Tensor | None]]
    ) -> Iterator[None]:
        """Use ``statistics`` instead of the BatchNorms' running ones inside the block.

        Those with None for theirs use each batch's own, as without running ones.
        """
        norms = {name: self._norms[name] for name in statistics}
        before = {name: (norm.running_mean, norm.running_var) for name, norm in norms.items()}
        try:
            for name, (mean, variance) in statistics.items():
                if before[name][0] is not None:  # others always use their batch's own
                    norms[name].running_mean = mean
                    norms[name].running_var = variance
            yield
        finally:
            for name, (mean_before, variance_before) in before.items():
                norms[name].running_mean = mean_before
                norms[name].running_var = variance_before


def _normalise_by_batch(norm: nn.Module, name: str, statistics: Statistics, x: Tensor) -> Tensor:
    assert isinstance(norm, BATCH_NORMS)
    output, mean, inverse_std = torch.native_batch_norm(
        x, norm.weight, norm.bias, None, None, True, 0.0, norm.eps
    )
    statistics[name] = (mean, inverse_std.pow(-2).sub_(norm.eps).clamp_(min=0))
    return output


def _note_statistics(
    name: str, statistics: Statistics, norm: nn.Module, inputs: tuple[Tensor, ...]
) -> None:
    variance, mean = torch.var_mean(inputs[0], [0, *range(2, inputs[0].dim())], correction=0)
    statistics[name] = (mean, variance)


def _changed(tensors: Mapping[str, Tensor], factor: float, added: float) -> dict[str, Tensor]:
    """Return a norm's tensors by which its normalised input is scaled and shifted first."""
    changed = dict(tensors)
    if "weight" in tensors:
        changed["weight"] = tensors["weight"] * factor
        if "bias" in tensors:
            changed["bias"] = tensors["bias"] + tensors["weight"] * added
    return changed


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)


@torch.inference_mode()
def fastest_layout(network: nn.Module, example: Tensor) -> torch.memory_format:
    """Return channels_last, which CPUs convolve fastest, unless the network cannot be run in it.

    A network that flattens images with ``view`` works in the usual layout only.

    Args:
        network: in evaluation mode; not changed.
        example: inputs (images, channels, height, width).
    """
    if example.dim() != 4:
        return torch.contiguous_format
    copied = Candidate(network, SlicePlan(network, ()))
    try:
        copied.network(example.contiguous(memory_format=copied.layout))
    except RuntimeError:
        return torch.contiguous_format
    return copied.layout


def replace_tensor(module: nn.Module, key: str, tensor: Tensor) -> None:
    """Set a parameter or buffer of ``module`` to ``tensor``."""
    if key in module._buffers:
        module._buffers[key] = tensor
    else:
        module._parameters[key] = nn.Parameter(tensor, requires_grad=False)


class Sizes:
    """The attributes of a layer that count its channels.

    Args:
        layer: uncut.
    """

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer
        self._whole = dict(zip(("out", "in"), layer_sizes(layer), strict=True))
        self._attributes = {
            name: (side, prod(value) if isinstance(value, tuple) else int(value))
            for name, side in channel_attributes(layer).items()
            for value in [getattr(layer, name)]
        }

    def fits(self, out: int | None) -> bool:
        """Whether so many outputs are whole groups of channels, where the layer has such."""
        whole = self._whole["out"]
        sides = (size for side, size in self._attributes.values() if side == "out")
        return out is None or all(size * out % whole == 0 for size in sides)

    def set(self, out: int | None, into: int | None) -> None:
        """Adapt them to tensors with so many output and input channels; None: all of them."""
        left = {"out": out, "in": into}
        for name, (side, size) in self._attributes.items():
            kept = left[side]
            if kept is not None:
                value = size * kept // self._whole[side]
                is_shape = isinstance(getattr(self._layer, name), tuple)
                setattr(self._layer, name, (value,) if is_shape else value)
