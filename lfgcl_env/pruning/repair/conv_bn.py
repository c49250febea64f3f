"""A dense layer and the BatchNorm behind it, read and set as one affine map."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lfgcl_env.pruning.moments.patches import PatchReader
from lfgcl_env.pruning.structure.candidate import replace_tensor
from lfgcl_env.pruning.structure.emptied import Constant
from lfgcl_env.pruning.structure.layers import BATCH_NORMS

_DEAD = 1e-8


class NoPatches:
    """Stands for the patches of a layer without inputs, of which the constant alone is left.

    Args:
        module: what stands in for the layer.
    """

    def __init__(self, module: Constant) -> None:
        self._window = module.window
        self.kernel = self._window.kernel

    def positions(self, x: Tensor) -> int:
        """Count the output positions per input."""
        return prod(self._window.shape(x[:1], 1))

    def patches(self, chunks: Sequence[Tensor], chosen: Sequence[Tensor]) -> Tensor:
        """Return a row without features for every chosen position."""
        return chunks[0].new_empty(sum(places.numel() for places in chosen), 0)

    def matrix(self, weight: Tensor | None, bias: Tensor) -> Tensor:
        """Lay the constant out as a matrix (out, 1)."""
        return bias.double()[:, None]


class ConvBN:
    """The affine map of a convolution or linear layer, with its BatchNorm if it has one.

    A constant that stands in for a layer without inputs is such a map, too.

    Args:
        module: the layer; its tensors are replaced by :meth:`set`, never written to.
        norm: the BatchNorm that alone uses its output, in evaluation mode, or None. A bias that
            the layer lacks is kept in its running mean.

    Attributes:
        reader: cuts patches out of its inputs.
        intercept: whether the map's constant can be changed.
    """

    def __init__(self, module: nn.Module, norm: nn.Module | None) -> None:
        self.module = module
        self.norm = norm
        self.reader = NoPatches(module) if isinstance(module, Constant) else PatchReader(module)
        self.intercept = module.bias is not None or norm is not None
        out = self._weight() if module.bias is None else module.bias
        assert isinstance(out, Tensor)
        self._scale = out.new_ones(len(out), dtype=torch.float64)
        self._shift = torch.zeros_like(self._scale)
        if norm is not None:
            self._scale, self._shift = affine_of(norm)

    def matrix(self) -> Tensor:
        """Return the map as a matrix; float64, (out, features), see :class:`PatchReader`."""
        matrix = self._own_matrix() * self._scale[:, None]
        matrix[:, -1] += self._shift
        return matrix

    def folded(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight and bias, of the network's type, that compute a :meth:`matrix`."""
        own = self._weight()
        assert isinstance(self.reader, PatchReader)
        weight, bias = self.reader.weight(matrix.to(own.dtype))
        return weight.contiguous(memory_format=layout_of(own)), bias

    @torch.no_grad()
    def set(self, matrix: Tensor) -> None:
        """Make the layer (and the BatchNorm's mean) compute ``matrix``.

        Rows that the BatchNorm multiplies with zero are left as they are.
        """
        live = self._scale.abs() > _DEAD
        scale = torch.where(live, self._scale, torch.ones_like(self._scale))
        new = matrix.clone()
        new[:, -1] -= self._shift
        new = torch.where(live[:, None], new / scale[:, None], self._own_matrix())
        bias = new[:, -1]
        if isinstance(self.reader, PatchReader):
            own = self._weight()
            weight, bias = self.reader.weight(new)
            # Copied: what has one row has any strides, and other kernels run on other strides.
            layout = torch.contiguous_format if own.is_contiguous() else layout_of(own)
            self._replace("weight", weight.to(own.dtype).clone(memory_format=layout))
        if isinstance(self.module.bias, Tensor):
            bias = bias.to(self.module.bias.dtype)
            self._replace("bias", bias.clone(memory_format=torch.contiguous_format))
        elif self.norm is not None:
            mean = self.norm.running_mean
            assert isinstance(mean, Tensor)
            replace_tensor(self.norm, "running_mean", mean - bias.to(mean.dtype))
            self._shift = self._shift + self._scale * bias

    def _weight(self) -> Tensor:
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return weight

    def _own_matrix(self) -> Tensor:
        """Return the map of the layer alone."""
        bias = self.module.bias
        assert bias is None or isinstance(bias, Tensor)
        if isinstance(self.reader, PatchReader):
            return self.reader.matrix(self._weight().double(), bias)
        assert bias is not None
        return self.reader.matrix(None, bias)

    def _replace(self, key: str, tensor: Tensor) -> None:
        trained = getattr(self.module, key).requires_grad
        replace_tensor(self.module, key, tensor)
        getattr(self.module, key).requires_grad_(trained)

    def tensors(self) -> list[tuple[nn.Module, str, Tensor]]:
        """Return what :meth:`set` replaces: modules, names of their tensors, and these."""
        found: list[tuple[nn.Module, str, Any]] = []
        if isinstance(self.reader, PatchReader):
            found.append((self.module, "weight", self.module.weight))
        if isinstance(self.module.bias, Tensor):
            found.append((self.module, "bias", self.module.bias))
        elif self.norm is not None:
            found.append((self.norm, "running_mean", self.norm.running_mean))
        return found

    def rows_of_output(self, value: Tensor, chosen: Tensor) -> Tensor:
        """Pick values of an output-shaped tensor at chosen positions; (images * positions, out)."""
        flat = value.movedim(1, -1) if self.reader.kernel else value
        flat = flat.reshape(len(value), -1, flat.shape[-1])
        picked = flat.gather(1, chosen[..., None].expand(-1, -1, flat.shape[-1]))
        return picked.reshape(-1, flat.shape[-1])


def affine_of(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return what a BatchNorm in evaluation mode multiplies with and adds; float64, (channels,)."""
    assert isinstance(norm, BATCH_NORMS)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    inverse = torch.rsqrt(norm.running_var.double() + norm.eps)
    scale = inverse if norm.weight is None else norm.weight.double() * inverse
    beta = torch.zeros_like(inverse) if norm.bias is None else norm.bias.double()
    return scale, beta - scale * norm.running_mean.double()


def fold(conv: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution with the BatchNorm behind it, in evaluation mode."""
    weight, bias = conv.weight, conv.bias
    assert isinstance(weight, Tensor)
    scale, shift = affine_of(norm)
    if isinstance(bias, Tensor):
        shift = shift + scale * bias
    folded = (weight * scale[:, None, None, None]).to(weight.dtype)
    return folded.contiguous(memory_format=layout_of(weight)), shift.to(weight.dtype)


def layout_of(weight: Tensor) -> torch.memory_format:
    """Return the memory layout of a weight: images that are convolved with it take it over."""
    last = weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def can_convolve(module: nn.Module) -> bool:
    """Whether :func:`convolve` knows a module: a 2-D convolution that pads with zeros."""
    return (
        isinstance(module, nn.Conv2d)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def convolve(module: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve with other weights, in the way of a zero-padded 2-D convolution."""
    assert isinstance(module, nn.Conv2d)
    return F.conv2d(x, weight, bias, module.stride, module.padding, module.dilation, module.groups)
