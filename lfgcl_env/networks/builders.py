"""Building a network's structure from a name."""

import inspect
from collections.abc import Callable
from functools import partial
from http.client import HTTPException
from typing import Annotated, Any

from annotated_types import Ge, Le
from torch import nn

from lfgcl_env.edge.choices import closest
from lfgcl_env.edge.named_code import import_named
from lfgcl_env.edge.schema import check_value, short
from lfgcl_env.edge.value_checks import first_line
from lfgcl_env.networks.cifar_resnet import CifarResNet
from lfgcl_env.networks.mobilenet_v2 import CifarMobileNetV2
from lfgcl_env.networks.vgg import CifarVGG16

BUILDERS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": partial(CifarResNet, depth) for depth in (20, 32, 44, 56, 110)},
    "vgg16_bn": CifarVGG16,
    "mobilenet_v2": CifarMobileNetV2,
    "resnet20_cifar100": partial(CifarResNet, 20, num_classes=100),
}
TORCHVISION = "torchvision:"
Classes = Annotated[int, Ge(1), Le(100_000)]


def network_names() -> list[str]:
    """Return the names of the networks for 32x32 images that are defined here.

    >>> network_names()[:6]
    ['resnet20', 'resnet32', 'resnet44', 'resnet56', 'resnet110', 'vgg16_bn']
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
        **arguments: passed to the builder, such as ``num_classes=100`` or, for the ResNets,
            ``shortcut="B"``.

    Raises:
        ValueError: if the name or an argument is unknown, the builder fails, or it returns no
            ``nn.Module``.

    >>> build_network("resnet20", num_classes=100).linear
    Linear(in_features=64, out_features=100, bias=True)
    """
    return call_builder(find_builder(name), name, arguments)


def call_builder(
    builder: Callable[..., nn.Module], name: str, arguments: dict[str, Any]
) -> nn.Module:
    """Call a builder, with an error that names it.

    Args:
        builder: returns the network.
        name: what to call it in errors.
        arguments: for the builder.

    Raises:
        ValueError: if an argument is unknown, the builder fails, or it returns no ``nn.Module``.
        OSError: if the builder cannot read or download something.
    """
    check_arguments(name, builder, arguments)
    try:
        network = builder(**arguments)
    except (OSError, HTTPException):
        raise
    except Exception as error:  # a function of one's own may raise anything
        given = f" with {short(arguments)}" if arguments else ""
        raise ValueError(f"{name} cannot be built{given}: {first_line(error)}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"{name} returned a {type(network).__name__}: a function that returns a "
            "torch.nn.Module is needed"
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


def check_arguments(name: str, builder: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Refuse arguments that a builder does not take.

    Raises:
        ValueError: if there is one; the message names the nearest.
    """
    if name.startswith(TORCHVISION) and "weights" in arguments:
        raise ValueError(
            f"the weights of {name} are chosen by the argument 'weights' of the environment or of "
            "load_baseline, not by one of the builder"
        )
    if name in BUILDERS or name.startswith(TORCHVISION):
        classes = arguments.get("num_classes", 1)
        check_value(classes, Classes, "num_classes", "a whole number from 1 to 100,000")
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
        for kind in ("detection", "segmentation"):
            if name in models.list_models(module=getattr(models, kind)):
                raise ValueError(
                    f"{name!r} is among torchvision's networks for {kind}: give "
                    f"'torchvision.models.{kind}:{name}' and an input_shape"
                )
        raise ValueError(
            f"torchvision has no classification network {name!r}: see "
            f"torchvision.models.list_models().{closest(name, names)}"
        )
    builder: Callable[..., nn.Module] = models.get_model_builder(name)
    return builder
