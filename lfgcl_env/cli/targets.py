"""What a command works on: an environment by its id or network, a device, the user's own code."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym

from lfgcl_env.config import EnvConfig, GlobalConfig, LayerwiseConfig, complete, part
from lfgcl_env.edge.choices import closest
from lfgcl_env.edge.named_code import current_folder_importable, import_named, names_code
from lfgcl_env.envs.registration import ANY_IDS, LAYERWISE_IDS
from lfgcl_env.networks import Baseline, load_baseline


def named(target: str) -> dict[str, str]:
    """Return the arguments that a target stands for: an environment, and its network if any.

    Raises:
        ValueError: for an unknown id.

    >>> named("LFGCL-ResNet56-v0"), named("resnet32")
    ({'environment': 'LFGCL-ResNet56-v0'}, {'environment': 'LFGCL-v0', 'network': 'resnet32'})
    """
    if looks_like_id(target):
        return {"environment": check_id(target)}
    return {"environment": ANY_IDS[0], "network": target}


def config_of(environment: str) -> type[EnvConfig]:
    """Return the config class of an environment's id.

    >>> config_of("AMC-ResNet20-v0").__name__
    'LayerwiseConfig'
    """
    return LayerwiseConfig if environment in LAYERWISE_IDS else GlobalConfig


def load_network(arguments: Mapping[str, Any]) -> Baseline:
    """Load the network that a command was given by its name or by an environment's id.

    Args:
        arguments: ``network``, and others of :class:`~lfgcl_env.config.EnvConfig`; ``weights`` may
            be None for those of the id.

    Raises:
        ValueError: for an unknown id or network, or arguments that do not fit it.
    """
    target = named(arguments["network"])
    of_id = gym.spec(target["environment"]).kwargs
    given = {name: value for name, value in arguments.items() if value is not None}
    asked = of_id | given | {"network": of_id["network"]} | target
    config = complete(EnvConfig, part(EnvConfig, asked), "the network")
    name = str(config["network"])
    import_own(name, "network")
    return load_baseline(
        name,
        config["weights"],
        input_shape=config["input_shape"],
        normalization=config["normalization"],
        seed=config["seed"],
        **(config["network_arguments"] or {}),
    )


def default_weights(target: str) -> str:
    """Return the weights that an environment has by its id, or a network by its name.

    Raises:
        ValueError: for an unknown id.
    """
    kwargs = gym.spec(check_id(target)).kwargs if looks_like_id(target) else {}
    return str(kwargs.get("weights", "published"))


def looks_like_id(name: str) -> bool:
    """Whether a name is meant for an environment's id rather than a network.

    >>> looks_like_id("LFGCL-ResNet56"), looks_like_id("torchvision:resnet18")
    (True, False)
    """
    return bool(re.search(r"-v\d+$", name)) or name.lower().startswith(("lfgcl-", "amc-"))


def check_id(name: str) -> str:
    """Return an environment's id.

    Raises:
        ValueError: if it is not registered; the message names the nearest.
    """
    plain = name.removeprefix("lfgcl_env:")
    ours = [
        env_id
        for env_id, spec in gym.registry.items()
        if str(spec.entry_point).startswith("lfgcl_env.")
    ]
    if plain not in ours:
        raise ValueError(f"unknown environment {name!r}: see `lfgcl list`.{closest(plain, ours)}")
    return plain


def import_own(name: object, what: str) -> Callable[..., Any] | None:
    """Import code that the user named, if it is code; the current folder's too.

    The current folder is importable for this moment only. Once imported, a module is found by its
    name from anywhere.

    Args:
        name: of a network, an agent or a reward.
        what: the kind of thing, for messages.

    Returns:
        The code; None if the name is one of this package or torchvision.

    Raises:
        ValueError: if it cannot be imported.
    """
    if not names_code(name):
        return None
    with current_folder_importable():
        return import_named(str(name), what)
