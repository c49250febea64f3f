"""Input patches of convolutions and linear layers as rows of a matrix."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lfgcl_env.pruning.structure.layers import CONVOLUTIONS, TRANSPOSED

_BLOCK = 128
"""Features in a block of a symmetric product."""


class PatchReader:
    """Cuts the patches that a layer multiplies with its weights out of its input.

    A row holds a patch's numbers tap by tap (kernel position by kernel position), all input
    channels of one tap together, and a constant 1 last. :meth:`matrix` lays weights out alike, so
    that ``matrix(weight, bias) @ row`` is the layer's output at the row's position.

    A transposed convolution multiplies every input position with all its taps, and adds up what
    meets at an output position. Its rows are input positions, and its matrix has a row for every
    tap of every output channel.

    Args:
        module: a convolution without groups, transposed or not, or a linear layer.
    """

    def __init__(self, module: nn.Module) -> None:
        self.kernel: tuple[int, ...] = ()
        self._spread: tuple[int, ...] = ()  # outputs and taps of a transposed convolution
        if isinstance(module, TRANSPOSED):
            self.channels = module.in_channels
            self._spread = (module.out_channels, *module.kernel_size)
            return
        if isinstance(module, nn.Linear):
            self.channels = module.in_features
            return
        assert isinstance(module, CONVOLUTIONS)
        self.channels, self.kernel = module.in_channels, tuple(module.kernel_size)
        self._padding = list(module._reversed_padding_repeated_twice)
        mode = module.padding_mode
        self._padding_mode = "constant" if mode == "zeros" else mode
        self._stride, self._dilation = tuple(module.stride), tuple(module.dilation)

    @property
    def taps(self) -> int:
        """Kernel positions: 9 for a 3x3 convolution, 1 for a linear layer."""
        return prod(self.kernel)

    @property
    def _axis(self) -> int:
        """The dimension of the input that holds channels."""
        return 1 if self.kernel or self._spread else -1

    @property
    def features(self) -> int:
        """Length of a row: taps times channels, and the constant."""
        return self.taps * self.channels + 1

    def positions(self, x: Tensor) -> int:
        """Count the output positions per input, which are the rows that one input gives."""
        if not self.kernel:
            return int(x[0].numel() // x.shape[self._axis])
        return prod(self._output_size(x))

    def rows(self, x: Tensor, chosen: Tensor) -> Tensor:
        """Cut patches of a layer's input out at chosen output positions.

        Args:
            x: the layer's input; (images, channels, ...), or (images, ..., features) if linear.
            chosen: output positions of each image, row-major; int64, (images, positions).

        Returns:
            (images * positions, features), of the type of ``x``.
        """
        return _with_one(self.patches([x], [chosen]))

    def patches(self, chunks: Sequence[Tensor], chosen: Sequence[Tensor]) -> Tensor:
        """Return the :meth:`rows` of several chunks of inputs, without the constant.

        The layer's inputs may have lost channels.
        """
        channels = chunks[0].shape[self._axis]
        count = sum(places.numel() for places in chosen)
        patches = chunks[0].new_empty(count, self.taps * channels)
        start = 0
        for x, places in zip(chunks, chosen, strict=True):
            end = start + places.numel()
            self._cut(x, places, patches[start:end].view(-1, channels))
            start = end
        return patches

    def _cut(self, x: Tensor, chosen: Tensor, into: Tensor) -> None:
        """Write patches at chosen positions, tap by tap; (images * positions * taps, channels)."""
        images, channels = len(x), into.shape[1]
        if not self.kernel:
            flat = x.movedim(self._axis, -1).reshape(-1, channels)
            each = len(flat) // images
            start = torch.arange(images, device=x.device)[:, None] * each
            torch.index_select(flat, 0, (start + chosen).flatten(), out=into)
            return
        padded = F.pad(x, self._padding, mode=self._padding_mode)
        sizes = padded.shape[2:]
        flat = padded.movedim(1, -1).reshape(-1, channels)
        steps = [prod(sizes[i + 1 :]) for i in range(len(sizes))]
        start = torch.arange(images, device=x.device)[:, None] * prod(sizes)
        rest = chosen
        for axis, size in reversed(list(enumerate(self._output_size(x)))):
            start = start + (rest % size) * self._stride[axis] * steps[axis]
            rest = rest // size
        offsets = torch.zeros(1, dtype=torch.int64, device=x.device)
        for axis, size in enumerate(self.kernel):
            along = torch.arange(size, device=x.device) * self._dilation[axis] * steps[axis]
            offsets = (offsets[:, None] + along).flatten()
        index = start.reshape(-1, 1) + offsets
        torch.index_select(flat, 0, index.flatten(), out=into)

    def matrix(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Lay weights (out, in, ...) and bias (out,) out as a matrix (out, features)."""
        if self._spread:
            rows = weight.flatten(1).T
            bias = None if bias is None else bias.repeat_interleave(prod(self._spread[1:]))
        else:
            rows = weight.flatten(2).movedim(2, 1).flatten(1) if self.kernel else weight
        last = rows.new_zeros(len(rows), 1) if bias is None else bias[:, None]
        return torch.cat([rows, last.to(rows)], dim=1)

    def weight(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight and bias of a :meth:`matrix`, for any number of input channels."""
        body, bias = matrix[:, :-1], matrix[:, -1]
        if self._spread:
            body = body.T.reshape(-1, *self._spread)
            bias = bias.reshape(self._spread[0], -1)[:, 0]
        if self.kernel:
            channels = body.shape[1] // self.taps
            body = body.reshape(len(body), self.taps, channels).movedim(1, 2)
            body = body.reshape(*body.shape[:2], *self.kernel)
        return body.contiguous(), bias.contiguous()

    def columns(self, channels: Tensor) -> Tensor:
        """Return the columns of some input channels in a row, tap by tap, without the constant."""
        taps = torch.arange(self.taps, device=channels.device)
        return (taps[:, None] * self.channels + channels).flatten()

    def _output_size(self, x: Tensor) -> Sequence[int]:
        padding = self._padding
        sizes = []
        for axis, size in enumerate(x.shape[2:]):
            after = 2 * (len(self.kernel) - 1 - axis)  # padding is listed from the last axis
            whole = size + padding[after] + padding[after + 1]
            reach = self._dilation[axis] * (self.kernel[axis] - 1) + 1
            sizes.append((whole - reach) // self._stride[axis] + 1)
        return sizes


def choose_positions(
    images: int, available: int, wanted: int, generator: torch.Generator
) -> Tensor:
    """Choose positions for each image: all of them, or ``wanted`` at random without repetition.

    Returns:
        int64, (images, min(available, wanted)), on the CPU.
    """
    if wanted >= available:
        return torch.arange(available).expand(images, -1)
    return torch.rand(images, available, generator=generator).topk(wanted, dim=1).indices


def gram(rows: Tensor, other: Tensor | None = None) -> Tensor:
    """Sum up outer products of rows with themselves, or with other rows; float64.

    Products of short pieces are taken in the rows' own type and added up in float64: the error is
    that of a few thousand float32 additions, at the speed of float32. Of the products of rows with
    themselves only one half is computed, block by block.

    Args:
        rows: (n, features).
        other: (n, outputs), or None.
    """
    features, pieces = rows.shape[1], torch.split(rows, 4096)
    if other is not None:
        total = rows.new_zeros(features, other.shape[1], dtype=torch.float64)
        for piece, partner in zip(pieces, torch.split(other, 4096), strict=True):
            total += piece.T @ partner
        return total
    total = rows.new_zeros(features, features, dtype=torch.float64)
    for piece in pieces:
        for start in range(0, features, _BLOCK):
            block = slice(start, start + _BLOCK)
            total[block, start:] += piece[:, block].T @ piece[:, start:]
    return total.triu() + total.triu(1).T


def gram_with_one(patches: Tensor, other: Tensor | None = None) -> Tensor:
    """Return :func:`gram` of patches with a constant 1 behind them; float64.

    Args:
        patches: (n, features).
        other: (n, outputs) that have no constant, or None.

    Returns:
        (features + 1, features + 1), or (features + 1, outputs).
    """
    total = gram(patches, other)
    if other is not None:
        return torch.cat([total, other.sum(0).double()[None]])
    sums = patches.sum(0).double()
    whole = total.new_empty(len(total) + 1, len(total) + 1)
    whole[:-1, :-1] = total
    whole[-1, :-1] = whole[:-1, -1] = sums
    whole[-1, -1] = len(patches)
    return whole


def _with_one(rows: Tensor) -> Tensor:
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
