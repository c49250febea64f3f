"""Building a network's structure from a name."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from lfgcl_env.edge.choices import closest
from lfgcl_env.edge.named_code import import_named
from lfgcl_env.networks.cifar_resnet import CifarResNet
from lfgcl_env.networks.mobilenet_v2 import CifarMobileNetV2
from lfgcl_env.networks.vgg import CifarVGG16

BUILDERS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": partial(CifarResNet, depth) for depth in (20, 32, 44, 56, 110)},
    "vgg16_bn": CifarVGG16,
    "mobilenet_v2": CifarMobileNetV2,
}
TORCHVISION = "torchvision:"


def network_names() -> list[str]:
    """Return the names of the networks for 32x32 images that are defined here.

    >>> network_names()
    ['resnet20', 'resnet32', 'resnet44', 'resnet56', 'resnet110', 'vgg16_bn', 'mobilenet_v2']
    """
    return list(BUILDERS)


def torchvision_names() -> list[str]:
    """Return the names of torchvision's classification networks, without ``torchvision:``."""
    from torchvision import models

    return list(models.list_models(module=models))


def build_network(name: str, **arguments: Any) -> nn.Module:
    """Build the structure of a network, with random weights.

    Args:
        name: one of :func:`network_names`, ``"torchvision:NAME"``, or
            ``"package.module:function"``.
        **arguments: handed to the builder, such as ``num_classes=100`` or, for the ResNets,
            ``shortcut="B"``.

    Raises:
        ValueError: if the name or an argument is unknown, or the function gives no ``nn.Module``.

    >>> build_network("resnet20", num_classes=100).linear
    Linear(in_features=64, out_features=100, bias=True)
    """
    return call_builder(find_builder(name), name, arguments)


def call_builder(
    builder: Callable[..., nn.Module], name: str, arguments: dict[str, Any]
) -> nn.Module:
    """Call a builder, with an error that names it.

    Args:
        builder: gives the network.
        name: what to call it in errors.
        arguments: for the builder.

    Raises:
        ValueError: if an argument is unknown, or what it gives is no ``nn.Module``.
    """
    _check_arguments(name, builder, arguments)
    if name.startswith(TORCHVISION):
        try:
            network = builder(**arguments)
        except TypeError as error:  # their functions take anything, and their classes complain
            raise ValueError(f"{name} cannot be built: {error}") from error
    else:
        network = builder(**arguments)
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"{name} gave a {type(network).__name__}: a function that returns a torch.nn.Module "
            "is needed"
        )
    return network


def find_builder(name: str) -> Callable[..., nn.Module]:
    """Return the function that builds the network of this name.

    Raises:
        ValueError: if there is none; the message names the nearest.
    """
    if name in BUILDERS:
        return BUILDERS[name]
    if name.startswith(TORCHVISION):
        return _torchvision_builder(name.removeprefix(TORCHVISION))
    if ":" in name:
        return import_named(name, "network")
    near = closest(name, BUILDERS)
    if name in torchvision_names():
        near = f" Did you mean {TORCHVISION + name!r}?"
    raise ValueError(
        f"unknown network {name!r}: choose one of {', '.join(BUILDERS)}, 'torchvision:NAME' or "
        f"'package.module:function'.{near}"
    )


def _check_arguments(name: str, builder: Callable[..., Any], arguments: dict[str, Any]) -> None:
    try:
        parameters = inspect.signature(builder).parameters.values()
    except (TypeError, ValueError):  # some callables have no signature to look at
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
    accepted = [parameter.name for parameter in parameters if parameter.kind not in positional]
    for argument in arguments:
        if argument not in accepted:
            raise ValueError(
                f"{name} does not take {argument!r}: it takes {', '.join(accepted) or 'nothing'}."
                f"{closest(argument, accepted)}"
            )


def _torchvision_builder(name: str) -> Callable[..., nn.Module]:
    from torchvision import models

    names = torchvision_names()
    if name not in names:
        raise ValueError(
            f"torchvision has no classification network {name!r}: see "
            f"torchvision.models.list_models().{closest(name, names)}"
        )
    builder: Callable[..., nn.Module] = models.get_model_builder(name)
    return builder
