"""The outputs that a network learns from its baseline."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lfgcl_env.edge.value_checks import first_line
from lfgcl_env.networks.copying import forget
from lfgcl_env.networks.outputs import named_outputs, per_image


def find_learned(baseline: nn.Module, network: nn.Module, example: Tensor) -> list[str]:
    """Name the baseline's outputs that have one entry for each image.

    Args:
        baseline: in evaluation mode.
        network: pruned from it, in evaluation mode.
        example: inputs on their device, of at least one image.

    Raises:
        ValueError: if there is none, one of them does not take these inputs, or the network does
            not return these outputs in the same shapes.
    """
    wanted = per_image(run_on(example, baseline, "the baseline"), len(example))
    if wanted:
        other = torch.cat([example, torch.zeros_like(example[:1])])
        again = per_image(run_on(other, baseline, "the baseline"), len(other))
        wanted = {name: shape for name, shape in wanted.items() if again.get(name) == shape}
    if not wanted:
        raise ValueError(
            "the network returns nothing that has one entry for each image, so there is "
            "nothing to learn from"
        )
    found = per_image(run_on(example, network, "the network"), len(example))
    if any(found.get(name) != shape for name, shape in wanted.items()):
        raise ValueError(
            "the network was not pruned from this baseline: for an image it returns "
            f"{_describe(found)}, and the baseline {_describe(wanted)}"
        )
    return list(wanted)


@torch.no_grad()
def run_on(example: Tensor, network: nn.Module, what: str) -> dict[str, Tensor]:
    """Return a network's outputs by name.

    Args:
        example: inputs on its device.
        network: in evaluation mode; it keeps nothing of what it computes.
        what: it is, for errors.

    Raises:
        ValueError: if it fails.
    """
    try:
        return named_outputs(forget(network)(example.clone()))  # it may work in place
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a network of one's own may raise anything
        raise ValueError(
            f"{what} does not take images of shape {tuple(example.shape[1:])} ({first_line(error)})"
        ) from error
    finally:
        forget(network)


def _describe(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Write shapes as a sentence's part, such as ``(10,)`` or ``out (10,), aux (10,)``."""
    return ", ".join(f"{name} {shape}".strip() for name, shape in shapes.items()) or "nothing"
