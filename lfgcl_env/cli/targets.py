"""What a command works on: an environment by its id or network, and a device."""

import re
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import torch

from lfgcl_env.edge.choices import closest
from lfgcl_env.networks import Baseline, load_baseline


def make_env(target: str, options: dict[str, Any]) -> gym.Env[Any, Any]:
    """Make an environment from its id, or ``LFGCL-v0`` with a network.

    Raises:
        ValueError: for an unknown id or network, or arguments that the environment refuses.
    """
    if looks_like_id(target):
        return gym.make(check_id(target), **options)
    return gym.make("LFGCL-v0", network=target, **options)


def load_network(arguments: Mapping[str, Any], seed: int = 0) -> Baseline:
    """Load the network that a command was given by its name or by an environment's id.

    Args:
        arguments: ``network``, ``weights`` (None for the default), ``input_shape`` and
            ``normalization``.
        seed: of random weights.

    Raises:
        ValueError: for an unknown id or network, or arguments that do not fit it.
    """
    name = arguments["network"]
    weights = arguments["weights"] or default_weights(name)
    if looks_like_id(name):
        name = gym.spec(check_id(name)).kwargs.get("network", name)
    return load_baseline(
        name,
        weights,
        input_shape=arguments["input_shape"],
        normalization=arguments["normalization"],
        seed=seed,
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


def check_device(name: str) -> str:
    """Return a device's name.

    Raises:
        ValueError: if tensors cannot be put there.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"device {name!r} cannot be used here: {reason}") from error
    return name
