"""The values of a network's outputs that are compared: all of them, or a grid of large maps."""

from torch import Tensor

from lfgcl_env.networks.outputs import holds_classes, named_outputs

MOST_VALUES = 2**14
"""Numbers that are compared of an output for one image: a map of 4 classes has 64 x 64 pixels."""


def read_output(returned: object, place: str) -> Tensor:
    """Return what is compared of an output; (images, ...), two dimensions at least.

    Of an output that is larger than :data:`MOST_VALUES` every second, fourth, ... row and column
    is taken, never a part of the classes.

    Args:
        returned: by a network.
        place: of the output there, see :func:`~lfgcl_env.networks.outputs.named_outputs`.

    Raises:
        ValueError: if there is no such output.

    >>> import torch
    >>> read_output({"map": torch.zeros(2, 4, 256, 128), "depth": torch.zeros(2)}, "map").shape
    torch.Size([2, 4, 64, 64])
    """
    outputs = named_outputs(returned)
    if place not in outputs:
        raise ValueError(f"the network returns no output {place!r}")
    values = outputs[place]
    if values.dim() == 1:
        return values[:, None]
    if values.dim() == 2:
        return values
    first = 2 if holds_classes(values.shape[1:]) else 1
    while values[0].numel() > MOST_VALUES and max(values.shape[first:]) > 1:
        axis = max(range(first, values.dim()), key=lambda axis: values.shape[axis])
        steps = [slice(None)] * values.dim()
        steps[axis] = slice(None, None, 2)
        values = values[tuple(steps)]
    return values
