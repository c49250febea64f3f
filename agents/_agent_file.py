"""Files of agents that learn with PyTorch: tensors and plain values, read without running code."""

import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Path = str | os.PathLike[str]

LARGEST_SIZE = 4096
"""Largest whole number among saved arguments: bounds what a file can make an agent allocate."""

_Arguments = TypeVar("_Arguments", bound=Any)


class Learner(Protocol):
    """What an agent has that is saved: settings, networks, optimisers, random generators."""

    name: str
    arguments: Any
    seed: int
    networks: nn.ModuleDict
    optimizers: Sequence[torch.optim.Optimizer]
    draws: np.random.Generator
    generator: torch.Generator


def write(path: Path, agent: Learner, **further: Any) -> None:
    """Write all that an agent goes on with to a file, at exactly this path.

    Args:
        path: of the file.
        agent: to be saved.
        **further: its replay and the like: tensors, numbers, strings, and lists of them.
    """
    parts = {
        "agent": agent.name,
        "arguments": asdict(agent.arguments),
        "seed": agent.seed,
        "networks": agent.networks.state_dict(),
        "moments": [dict(optimizer.state_dict()["state"]) for optimizer in agent.optimizers],
        "numpy": json.dumps(agent.draws.bit_generator.state),
        "torch": agent.generator.get_state(),
    }
    torch.save({**parts, **further}, path)


def read(path: Path, agent: str) -> dict[str, Any]:
    """Read what :func:`write` wrote, and check its checksums and that all tensors are finite.

    Args:
        path: of the file.
        agent: name of the agent that it is to be of.

    Raises:
        ValueError: if it is not such a file, or damaged.
        OSError: if it cannot be read.
    """
    with refusing(path, agent):
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type for member in archive.infolist()):
                raise ValueError("it is compressed")
            if archive.testzip() is not None:
                raise ValueError("a checksum does not match")
        saved: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        if saved["agent"] != agent:
            raise ValueError(f"it is of the agent {saved['agent']!r}")
        for tensor in _tensors(saved):
            if not tensor.is_contiguous() or not tensor.isfinite().all():
                raise ValueError("a tensor is not contiguous and finite")
    return saved


@contextmanager
def refusing(path: Path, agent: str) -> Iterator[None]:
    """Turn whatever goes wrong while a file is taken apart into a ValueError of one sentence.

    Raises:
        ValueError: from any exception other than OSError.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ValueError(
            f"{os.fspath(path)} is not a file of the agent {agent!r} that fits here ({reason})"
        ) from error


def saved_arguments(kind: type[_Arguments], saved: dict[str, Any]) -> _Arguments:
    """Return the arguments in a file.

    Raises:
        ValueError: if names or types are others, or a size is above ``LARGEST_SIZE``.
    """
    default, found = asdict(kind()), saved["arguments"]
    if set(found) != set(default):
        raise ValueError("it is of another version of this agent")
    for name, value in found.items():
        sizes = value if isinstance(value, tuple) else (value,)
        large = any(isinstance(size, int) and not 0 <= size <= LARGEST_SIZE for size in sizes)
        if type(value) is not type(default[name]) or large:
            raise ValueError(f"its argument {name} is {value!r}")
    return kind(**found)


def restore(agent: Learner, saved: dict[str, Any]) -> None:
    """Give a new agent the networks, moments and random states of a file.

    Raises:
        ValueError: if the moments are of other parameters.
        RuntimeError: if the networks have another size.
    """
    agent.networks.load_state_dict(saved["networks"])
    for optimizer, moments in zip(agent.optimizers, saved["moments"], strict=True):
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            shapes = {name: part.shape for name, part in optimizer.state[parameter].items()}
            whole = parameter.shape
            if moments and shapes != {"step": (), "exp_avg": whole, "exp_avg_sq": whole}:
                raise ValueError("an optimiser's moments are of other parameters")
    agent.draws.bit_generator.state = json.loads(saved["numpy"])
    agent.generator.set_state(saved["torch"])


def restore_networks(agent: Learner, path: Path) -> None:
    """Give an agent the networks of a file, and nothing else.

    Raises:
        ValueError: if it is not a file of such an agent, or the networks have another size.
        OSError: if it cannot be read.
    """
    saved = read(path, agent.name)
    with refusing(path, agent.name):
        agent.networks.load_state_dict(saved["networks"])


def _tensors(part: Any) -> Iterator[Tensor]:
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, dict | list | tuple):
        for value in part.values() if isinstance(part, dict) else part:
            yield from _tensors(value)
