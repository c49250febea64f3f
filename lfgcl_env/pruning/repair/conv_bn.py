"""A dense layer and the BatchNorm behind it, read and set as one affine map."""

import torch
from torch import Tensor, nn

from lfgcl_env.pruning.moments.patches import PatchReader
from lfgcl_env.pruning.structure.layers import BATCH_NORMS

_DEAD = 1e-8


class ConvBN:
    """The affine map of a convolution or linear layer, with its BatchNorm if it has one.

    Args:
        module: the layer; its weights are changed by :meth:`set`.
        norm: the BatchNorm that alone uses its output, in evaluation mode, or None. A bias that
            the layer lacks is kept in its running mean.
    """

    def __init__(self, module: nn.Module, norm: nn.Module | None) -> None:
        self.module = module
        self.norm = norm
        self.reader = PatchReader(module)
        self.intercept = module.bias is not None or norm is not None
        weight = module.weight
        assert isinstance(weight, Tensor)
        self._scale = weight.new_ones(len(weight), dtype=torch.float64)
        self._shift = torch.zeros_like(self._scale)
        if norm is not None:
            assert isinstance(norm, BATCH_NORMS)
            assert norm.running_var is not None
            assert norm.running_mean is not None
            inverse = torch.rsqrt(norm.running_var.double() + norm.eps)
            self._scale = inverse if norm.weight is None else norm.weight.double() * inverse
            beta = torch.zeros_like(inverse) if norm.bias is None else norm.bias.double()
            self._shift = beta - self._scale * norm.running_mean.double()

    def __call__(self, x: Tensor) -> Tensor:
        """Run the layer and its BatchNorm."""
        output: Tensor = self.module(x)
        return output if self.norm is None else self.norm(output)

    def matrix(self) -> Tensor:
        """Return the map as a matrix; float64, (out, features), see :class:`PatchReader`."""
        weight, bias = self.module.weight, self.module.bias
        assert isinstance(weight, Tensor)
        assert bias is None or isinstance(bias, Tensor)
        matrix = self.reader.matrix(weight.double(), bias) * self._scale[:, None]
        matrix[:, -1] += self._shift
        return matrix

    @torch.no_grad()
    def set(self, matrix: Tensor) -> None:
        """Make the layer (and the BatchNorm's mean) compute ``matrix``.

        Rows that the BatchNorm multiplies with zero are left as they are.
        """
        live = self._scale.abs() > _DEAD
        old = self.reader.matrix(self.module.weight.double(), self.module.bias)  # type: ignore[arg-type, operator]
        scale = torch.where(live, self._scale, torch.ones_like(self._scale))
        new = matrix.clone()
        new[:, -1] -= self._shift
        new = torch.where(live[:, None], new / scale[:, None], old)
        weight, bias = self.reader.weight(new)
        own_weight, own_bias = self.module.weight, self.module.bias
        assert isinstance(own_weight, Tensor)
        own_weight.copy_(weight)
        if isinstance(own_bias, Tensor):
            own_bias.copy_(bias)
        elif self.norm is not None:
            assert isinstance(self.norm.running_mean, Tensor)
            assert isinstance(self.norm, BATCH_NORMS)
            self.norm.running_mean.sub_(bias.to(self.norm.running_mean.dtype))
            self._shift = self._shift + self._scale * bias

    def rows_of_output(self, value: Tensor, chosen: Tensor) -> Tensor:
        """Pick values of an output-shaped tensor at chosen positions; (images * positions, out)."""
        flat = value.movedim(1, -1) if self.reader.kernel else value
        flat = flat.reshape(len(value), -1, flat.shape[-1])
        picked = flat.gather(1, chosen[..., None].expand(-1, -1, flat.shape[-1]))
        return picked.reshape(-1, flat.shape[-1])
