"""Building a network that a file names: no foreign code runs, and its weights take no memory."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le, MaxLen
from torch import nn
from torch.overrides import TorchFunctionMode

from lfgcl_env.edge.bounds import Name
from lfgcl_env.edge.choices import closest
from lfgcl_env.edge.named_code import names_code
from lfgcl_env.edge.schema import check_value, short
from lfgcl_env.networks.builders import BUILDERS, TORCHVISION, call_builder, find_builder

LARGEST_SIZE = 100_000
"""The largest number among the arguments of a network that a file names."""

LARGEST_NETWORK = 10**9
"""Parameters of the largest network that a file may name."""

_Argument = (
    bool
    | Annotated[int, Ge(-LARGEST_SIZE), Le(LARGEST_SIZE)]
    | Annotated[float, Ge(-LARGEST_SIZE), Le(LARGEST_SIZE)]
    | Name
    | Annotated[list[bool], MaxLen(10)]
    | None
)
_DOWNLOADING = ("weights", "pretrained")


def is_safe(name: object) -> bool:
    """Whether a file may name this network: one of this package's or torchvision's.

    >>> is_safe("resnet20"), is_safe("torchvision:resnet18"), is_safe("os:rmdir")
    (True, True, False)
    """
    return isinstance(name, str) and (name in BUILDERS or name.startswith(TORCHVISION))


def find_safely(name: object, where: str) -> Callable[..., nn.Module]:
    """Return the builder of a network that a file names.

    Raises:
        ValueError: if it is not one for which :func:`is_safe` holds; ``where`` begins the message.
    """
    if not is_safe(name):
        code = ", and importing it would run somebody's code" if names_code(name) else ""
        raise ValueError(
            f"{where} names the network {short(name)}{code}: only networks of this package and "
            f"'torchvision:NAME' are accepted from a file.{closest(str(name), BUILDERS)}"
        )
    return find_builder(str(name))


def build_safely(name: str, arguments: Mapping[str, Any], where: str) -> nn.Module:
    """Build the structure of a network that a file names.

    Its tensors are on the device ``"meta"``, without values, so that no size in a file allocates
    memory. Tensors that are no bigger than a few MB, such as tables of positions, may be real.

    Args:
        name: a network for which :func:`is_safe` holds.
        arguments: of its builder, as the file gives them.
        where: the file, for messages.

    Raises:
        ValueError: if the name is another, an argument is unknown, not a plain value or too large,
            or the network cannot be built or is larger than ``LARGEST_NETWORK``.

    >>> build_safely("resnet20", {"num_classes": 7}, "the file").linear.weight.shape
    torch.Size([7, 64])
    """
    builder = find_safely(name, where)
    for argument, value in arguments.items():
        if argument in _DOWNLOADING:
            raise ValueError(f"{where}: the argument {argument!r} of {name} is not for files")
        check_value(
            value,
            _Argument,
            f"{where}: the argument {short(argument)} of {name}",
            f"a number of at most {LARGEST_SIZE:,}, a short text, a flag or a list of flags",
        )
    try:
        with _Unallocated():
            network = call_builder(builder, name, dict(arguments))
    except Exception as error:  # torchvision's networks raise all kinds for odd arguments
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{where}: {name} cannot be built ({reason})") from error
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if parameters > LARGEST_NETWORK:
        raise ValueError(
            f"{where}: {name} with {dict(arguments)} has {parameters:,} parameters; at most "
            f"{LARGEST_NETWORK:,} are accepted"
        )
    return network


class _Unallocated(TorchFunctionMode):
    """Make the tensors that layers create without values, on the device ``"meta"``.

    Not ``torch.device("meta")``: some networks compute their own sizes with tensors.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = dict(kwargs or {})
        if function in (torch.empty, torch.zeros, torch.ones):
            given["device"] = "meta"
        return function(*args, **given)
