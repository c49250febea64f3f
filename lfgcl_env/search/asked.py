"""The record of what a search was asked, the same from Python and from the command."""

import json
import logging
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import gymnasium as gym

from lfgcl_env.config import GlobalConfig, LayerwiseConfig, complete, options, part
from lfgcl_env.envs import AMCEnv
from lfgcl_env.search.search_config import SearchConfig

_logger = logging.getLogger(__name__)


def describe(env: gym.Env[Any, Any], search: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is recorded of a search's arguments, as JSON.

    Args:
        env: the environment; its id is recorded, and all its arguments with their defaults.
        search: the search's own arguments.

    Returns:
        ``environment``, the environment's arguments, and the search's. What JSON cannot hold, such
        as a module, is recorded by the name of its type, and a message says so.
    """
    spec = env.unwrapped.spec
    if spec is None:
        made: dict[str, Any] = {"environment": type(env.unwrapped).__name__}
    else:
        kind = _kind(env)
        # Completed, so that one value is recorded alike however it is written, patterns in order.
        known = complete(kind, part(kind, spec.kwargs), "the environment")
        made = {"environment": spec.id, **spec.kwargs, **known}
        if made["images"] is None:
            made["images"] = env.unwrapped.images  # type: ignore[attr-defined]
        # The table itself, which decides strategies, not where it was found.
        made["latency_table"] = env.unwrapped.problem.latency_table  # type: ignore[attr-defined]
    described = {name: _as_json(value) for name, value in (made | dict(search)).items()}
    by_type = [name for name, (_, exact) in described.items() if not exact]
    if by_type:
        _logger.info(
            "recorded by their types alone: %s; such a run can only go on from Python",
            ", ".join(by_type),
        )
    return {name: value for name, (value, _) in described.items()}


def may_differ(env: gym.Env[Any, Any]) -> list[str]:
    """Return the names of arguments that a resumed search may change."""
    kinds = (_kind(env), SearchConfig)
    free = [n for kind in kinds for n, option in options(kind).items() if not option.decides]
    return [name for name in free if name != "workers"]  # as many strategies are proposed at a time


def _kind(env: gym.Env[Any, Any]) -> Any:
    return LayerwiseConfig if isinstance(env.unwrapped, AMCEnv) else GlobalConfig


def _as_json(value: Any) -> tuple[Any, bool]:
    """Return a value as JSON reads it back, and whether that is the value itself."""
    if isinstance(value, PurePath):
        value = str(value)
    try:
        return json.loads(json.dumps(value, allow_nan=False)), True
    except (TypeError, ValueError):
        return type(value).__name__, False
