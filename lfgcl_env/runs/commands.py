"""Commands on a run, with the options that own code needs, as a person would type them."""

import json
import os
import shlex
from collections.abc import Mapping
from typing import Any

from lfgcl_env.edge.named_code import names_code
from lfgcl_env.envs.registration import ANY_IDS, GLOBAL_IDS, LAYERWISE_IDS
from lfgcl_env.networks.builders import TORCHVISION, network_names

IN_MEMORY = ("Tensor", "ndarray", "Parameter", "memmap")
"""What a run's record calls images that were no file."""

_REWARDS = ("similarity", "accuracy")


def network_options(name: str | None, arguments: Mapping[str, Any] | None) -> str:
    r"""Return the options by which commands on a pruned network get its unpruned one.

    Args:
        name: what the network was built from.
        arguments: of its builder.

    Returns:
        Text that follows a command; empty for networks that a file may name.

    >>> network_options("resnet56", {}), network_options("own:build", {"width": 8})
    ('', ' --network own:build --network-arguments \'{"width": 8}\'')
    """
    if not names_code(name):
        return ""
    text = f" --network {shlex.quote(str(name))}"
    if arguments:
        text += f" --network-arguments {shlex.quote(json.dumps(arguments))}"
    return text


def resume_command(folder: str | os.PathLike[str], asked: Mapping[str, Any]) -> str | None:
    """Return the command that goes on with a run; it names again what code the run names.

    Args:
        folder: of the run.
        asked: the run's arguments.

    Returns:
        None for a run that can only go on from Python: a network, reward, agent or images of it
        were objects.

    >>> resume_command("a run", {"environment": "LFGCL-v0", "network": "m:f", "agent": "random"})
    "lfgcl prune m:f --resume --out 'a run'"
    """
    environment, network = asked["environment"], asked.get("network")
    agent, reward = asked["agent"], asked.get("reward", "similarity")
    if not (
        environment in {**GLOBAL_IDS, **LAYERWISE_IDS}
        and (network is None or _is_buildable(network))
        and (reward in _REWARDS or _is_importable(reward))
        and (not names_code(agent) or _is_importable(agent))
        and asked.get("images") not in IN_MEMORY
    ):
        return None
    parts = ["lfgcl", "prune"]
    trust = False
    if names_code(network):
        if environment == ANY_IDS[0]:
            parts.append(str(network))
        else:
            trust = True  # a network in place of an id would be another environment
    parts += ["--resume", "--out", str(folder)]
    for option, name in (("--agent", agent), ("--reward", reward)):
        parts += [option, str(name)] if names_code(name) else []
    return shlex.join([*parts, *["--trust"] * trust])


def recover_command(
    target: str | os.PathLike[str], asked: Mapping[str, Any], options: str
) -> str | None:
    """Return the command that recovers a run's network.

    Args:
        target: the run folder, or a network's file in it.
        asked: the run's arguments.
        options: by which commands get the unpruned network, see :func:`network_options`.

    Returns:
        None where images or the reward were objects, which the command cannot get.

    >>> recover_command("run", {"reward": "my.scores:f1"}, ""), recover_command("run", {}, "")
    ('lfgcl recover run --reward my.scores:f1', 'lfgcl recover run')
    """
    reward = asked.get("reward", "similarity")
    if asked.get("images") in IN_MEMORY or not (reward in _REWARDS or _is_importable(reward)):
        return None
    own = "" if reward in _REWARDS else f" --reward {shlex.quote(reward)}"
    return f"lfgcl recover {shlex.quote(str(target))}{options}{own}"


def _is_buildable(network: object) -> bool:
    known = network in network_names() or str(network).startswith(TORCHVISION)
    return known or _is_importable(network)


def _is_importable(name: object) -> bool:
    text = str(name)
    return names_code(name) and "<" not in text and not text.startswith("__main__:")
