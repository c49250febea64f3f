"""What a network returns, as named tensors: one alone, or several in tuples or dictionaries.

An output can be compared from network to network if it has one entry of the same shape for every
image. Detections are not such: every image has another number of them.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from lfgcl_env.edge.value_checks import first_line
from lfgcl_env.networks.draws import own_draws

_CALLS = 16
"""Calls of a network that draws random numbers, to see whether its outputs depend on them."""

Shape = tuple[int, ...]


def named_outputs(output: object) -> dict[str, Tensor]:
    """Name the tensors in what a network returned by their places there.

    Tuples, lists, dictionaries and dataclasses are searched, however they are nested. Single
    numbers, tensors without floating-point numbers and whatever is no tensor are left out.

    >>> list(named_outputs({"out": torch.zeros(2, 5), "aux": (torch.zeros(2, 3), None)}))
    ['out', 'aux.0']
    >>> list(named_outputs(torch.zeros(2, 5)))
    ['']
    """
    return dict(_find_tensors(output, ()))


def find_outputs(
    network: nn.Module, shape: Shape, name: str, several: str | None = None
) -> dict[str, Shape]:
    """Run a network, and return the shape of every output that can be compared, for one image.

    Args:
        network: in evaluation mode on the CPU.
        shape: of one input.
        name: of the network, for errors.
        several: names the inputs that are packed to one; None for one that is not.

    Returns:
        By :func:`named_outputs`' names; empty if nothing has one entry for every image.

    Raises:
        ValueError: if the network fails, returns no tensors, or others when it is called again.
    """
    _check_repeats(network, shape, name, several)
    black = _run(network, torch.zeros(2, *shape), name, several)
    if black.keys() == {""} and black[""].dim() == 2 and len(black[""]) == 2:
        return {"": tuple(black[""].shape[1:])}
    noise = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    other = _run(network, noise, name, several)
    again = per_image(other, 3)
    return {
        place: sizes
        for place, sizes in per_image(black, 2).items()
        if again.get(place) == sizes and 0 not in sizes
    }


def per_image(outputs: Mapping[str, Tensor], images: int) -> dict[str, Shape]:
    """Map outputs that have as many entries as there are images to the shape of one entry.

    A list of detections may have this length by accident, but not for two batches.
    """
    return {name: tuple(one.shape[1:]) for name, one in outputs.items() if len(one) == images}


def holds_classes(shape: Sequence[int]) -> bool:
    """Whether an output is taken for scores of classes, for an image or for each of its pixels.

    >>> holds_classes((10,)), holds_classes((21, 64, 64)), holds_classes((1,)), holds_classes(())
    (True, True, False, False)

    Args:
        shape: of the output for one image: (classes,), (classes, height, width) or (classes,
            depth, height, width). Of two dimensions nobody knows which one holds classes.
    """
    return len(shape) in (1, 3, 4) and shape[0] > 1


def class_scores(output: object) -> Tensor:
    """Return the one tensor (images, classes) in what a classifier returned.

    Raises:
        ValueError: if there is none, or more than one.

    >>> class_scores((torch.zeros(2, 5), torch.zeros(1))).shape
    torch.Size([2, 5])
    """
    found = [
        tensor
        for tensor in named_outputs(output).values()
        if tensor.dim() == 2 and holds_classes(tensor.shape[1:])
    ]
    if len(found) != 1:
        raise ValueError(
            f"scores of classes are needed, one tensor (images, classes), and {len(found)} such "
            "were returned"
        )
    return found[0]


def _find_tensors(output: object, place: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(output, Tensor):
        if output.is_floating_point() and output.dim():
            yield ".".join(place), output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _find_tensors(value, (*place, str(key)))
    elif isinstance(output, tuple | list):
        for index, value in enumerate(output):
            yield from _find_tensors(value, (*place, str(index)))
    elif dataclasses.is_dataclass(output):
        for field in dataclasses.fields(output):
            yield from _find_tensors(getattr(output, field.name, None), (*place, field.name))


def _check_repeats(network: nn.Module, shape: Shape, name: str, several: str | None) -> None:
    """Refuse a network whose outputs differ from call to call, with which nothing compares."""
    noise = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    with own_draws(0):
        first = _outputs_of(network, noise, name, several)
    for seed in range(1, _CALLS):
        with own_draws(seed):
            before = torch.get_rng_state()
            again = _outputs_of(network, noise, name, several)
            draws = not torch.equal(before, torch.get_rng_state())
        if _differ(first, again):
            raise ValueError(
                f"{name} gives other outputs when it is called again with the same inputs, so that "
                "pruned ones cannot be compared with it: it draws random numbers in evaluation, or "
                "keeps a state. Let it do so under `if self.training:` alone, return a VAE's mean, "
                "and give F.dropout training=self.training"
            )
        if not draws:
            return


def _differ(first: dict[str, Tensor], again: dict[str, Tensor]) -> bool:
    """Whether outputs of the same shapes differ; others, as of detections, are not compared."""
    for place, output in first.items():
        other = again.get(place)
        if other is None or other.shape != output.shape or not output.numel():
            continue
        if not torch.equal(output.isnan(), other.isnan()):
            return True
        differing = (other - output).detach().abs().nan_to_num().max()
        if differing > 1e-4 * output.detach().abs().nan_to_num(posinf=0.0).max():
            return True
    return False


def _run(network: nn.Module, inputs: Tensor, name: str, several: str | None) -> dict[str, Tensor]:
    with own_draws():
        return _outputs_of(network, inputs, name, several)


def _outputs_of(
    network: nn.Module, inputs: Tensor, name: str, several: str | None
) -> dict[str, Tensor]:
    output = _call(network, inputs, name, several)
    found = named_outputs(output)
    if not found:
        raise ValueError(
            f"{name} returns a {type(output).__name__} without floating-point tensors: a tensor is "
            "needed, or several in tuples, lists, dictionaries or dataclasses"
        )
    return found


@torch.no_grad()
def _call(network: nn.Module, inputs: Tensor, name: str, several: str | None) -> object:
    try:
        return network(inputs.clone())  # it may work in place
    except Exception as error:  # a network of one's own may raise anything
        if several is not None:
            raise ValueError(
                f"{name} does not take the inputs ({several}) ({first_line(error)}): give them "
                "in the order of its arguments, or by their names"
            ) from error
        raise ValueError(
            f"{name} does not take inputs of shape {tuple(inputs.shape[1:])} "
            f"({first_line(error)}): give input_shape, such as (channels, height, width)"
        ) from error
