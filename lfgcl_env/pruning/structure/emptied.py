"""What stands in for layers that lost all their channels: no channels, or a constant.

Where a group keeps nothing, its producers and the layers behind them have nothing to do, and a
consumer without other inputs gives one number per output channel, at every position alike: hidden
channels are zero at the borders too.
"""

from dataclasses import dataclass

import torch
import torch.fx
from torch import Tensor, nn

from lfgcl_env.pruning.structure.channel_norms import is_channel_norm
from lfgcl_env.pruning.structure.layers import CONVOLUTIONS, TRANSPOSED


@dataclass(frozen=True)
class Window:
    """How a layer's output positions follow from its input's.

    Attributes:
        axes: spatial axes of a convolution; 0 for other layers.
        linear: whether channels come last, as in a linear layer.
        same_shape: whether the output has the shape of the input, as behind a norm over all
            channels, which may be anywhere.
        kernel: size along every axis.
        stride: along every axis.
        padding: both sides of an axis together.
        dilation: along every axis.
    """

    axes: int = 0
    linear: bool = False
    same_shape: bool = False
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()

    @classmethod
    def of(cls, layer: nn.Module) -> "Window":
        """Read a convolution, linear layer, or layer with one parameter per channel."""
        if not isinstance(layer, CONVOLUTIONS):
            return cls(linear=isinstance(layer, nn.Linear), same_shape=is_channel_norm(layer))
        sides = layer._reversed_padding_repeated_twice  # both of the last axis first
        axes = len(layer.kernel_size)
        return cls(
            axes=axes,
            kernel=tuple(layer.kernel_size),
            stride=tuple(layer.stride),
            padding=tuple(sum(sides[2 * a : 2 * a + 2]) for a in reversed(range(axes))),
            dilation=tuple(layer.dilation),
        )

    def shape(self, x: Tensor, channels: int) -> tuple[int, ...]:
        """Return the shape of the layer's output for the input ``x``, with ``channels``."""
        if self.same_shape:
            return tuple(x.shape)
        if self.linear:
            return (*x.shape[:-1], channels)
        if not self.axes:
            return (x.shape[0], channels, *x.shape[2:])
        sizes = [self._size(axis, x.shape[axis - self.axes]) for axis in range(self.axes)]
        return (*x.shape[: -self.axes - 1], channels, *sizes)

    def _size(self, axis: int, size: int) -> int:
        reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return (size + self.padding[axis] - reach) // self.stride[axis] + 1


@torch.fx.wrap  # one operation for whoever traces the network
def give_nothing(x: Tensor, window: Window) -> Tensor:
    """Return no channels at the output positions of a layer."""
    return x.new_empty(window.shape(x, 0))


@torch.fx.wrap
def give_numbers(numbers: Tensor, x: Tensor, window: Window, layout: torch.memory_format) -> Tensor:
    """Return one number per channel at all output positions of a layer."""
    shape = window.shape(x, numbers.shape[0])
    spread = numbers.reshape(-1, *[1] * window.axes).expand(shape)
    # Copied, because what follows may work in place, as ReLUs and additions often do.
    return spread.clone(memory_format=layout if len(shape) == 4 else torch.contiguous_format)


class NoChannels(nn.Module):
    """Gives no channels, where the layer that it stands for would give its output.

    Args:
        layer: a convolution, linear layer, or layer with one parameter per channel.

    >>> NoChannels(nn.Conv2d(3, 8, 3, stride=2))(torch.zeros(4, 3, 9, 9)).shape
    torch.Size([4, 0, 4, 4])
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.window = Window.of(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor without channels that does not depend on the input's values."""
        return give_nothing(x, self.window)


class Constant(nn.Module):
    """Gives one number per channel at every position: a layer without inputs.

    Args:
        layer: the convolution or linear layer that it stands for.
        bias: the numbers, (channels,).
        trainable: whether gradients are computed for them.
        layout: of four-dimensional outputs in memory.

    Attributes:
        bias: see there; a parameter.

    >>> Constant(nn.Conv2d(3, 2, 3), torch.tensor([1.0, 2.0]))(torch.zeros(1, 0, 3, 3)).flatten()
    tensor([1., 2.], grad_fn=<ViewBackward0>)
    """

    def __init__(
        self,
        layer: nn.Module,
        bias: Tensor,
        *,
        trainable: bool = True,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        super().__init__()
        self.window = Window.of(layer)
        self.layout = layout
        self.bias = nn.Parameter(bias, requires_grad=trainable)

    def forward(self, x: Tensor) -> Tensor:
        """Return the constant in the shape of the layer's output for ``x``."""
        return give_numbers(self.bias, x, self.window, self.layout)

    def extra_repr(self) -> str:
        """Return the number of channels."""
        return str(len(self.bias))


def stand_in(
    layer: nn.Module,
    out: int,
    bias: Tensor | None = None,
    layout: torch.memory_format = torch.contiguous_format,
) -> NoChannels | Constant:
    """Return what stands in for a layer that has no outputs left, or no inputs.

    Args:
        layer: a convolution, linear layer, or layer with one parameter per channel.
        out: output channels that are left.
        bias: what a layer without inputs gives, (out,); None for its own bias, or zeros.
        layout: of four-dimensional outputs in memory.

    Raises:
        ValueError: for a transposed convolution, which nothing stands in for.
    """
    if isinstance(layer, TRANSPOSED):
        raise ValueError("a transposed convolution keeps at least one channel on either side")
    if out == 0:
        return NoChannels(layer)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if bias is None:
        own = layer.bias
        bias = own.detach() if isinstance(own, Tensor) else weight.new_zeros(out)
    return Constant(layer, bias, trainable=weight.requires_grad, layout=layout)


Places = list[tuple[nn.Module, str]]
"""The modules that hold a module, and the names under which they do."""


def places_of(network: nn.Module) -> dict[nn.Module, Places]:
    """Find the places of every module; one that is shared has several."""
    found: dict[nn.Module, Places] = {}
    for parent in network.modules():
        for key, child in parent._modules.items():
            if child is not None:
                found.setdefault(child, []).append((parent, key))
    return found


def put(module: nn.Module, places: Places) -> None:
    """Put a module in the places of another one."""
    for parent, key in places:
        parent._modules[key] = module
