"""Stepping several environments on one problem, so that workers score their strategies together."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym

from lfgcl_env.envs.pruning_env import PruningEnv

_PURE = (gym.wrappers.ClipAction, gym.wrappers.RescaleAction)


def twins(env: gym.Env[Any, Any], count: int) -> list[gym.Env[Any, Any]]:
    """Return an environment and ``count - 1`` others like it that share its problem and scores.

    Each has wrappers, an episode and a random generator of its own.

    Args:
        env: an environment of this package, wrapped or not.
        count: how many there are to be.
    """
    own: Any = env.unwrapped
    shared = {id(one): one for one in own.shared}
    return [env, *(deepcopy(env, {**shared, id(own): own.twin()}) for _ in range(count - 1))]


def score_ahead(envs: Sequence[gym.Env[Any, Any]], actions: Iterable[Any]) -> None:
    """Have the workers score what the next step of every environment leads to.

    The steps themselves then look it up. Action wrappers are followed that are known to do the same
    at every call: some of Gymnasium's, and those with a true attribute ``pure``. Where there are
    others nothing is scored ahead.

    Args:
        envs: those that :func:`twins` returned.
        actions: one for each.
    """
    pairs = [_unwrapped(env, action) for env, action in zip(envs, actions, strict=True)]
    if any(action is None for _, action in pairs):
        return
    strategies = [own.upcoming(action) for own, action in pairs]
    pairs[0][0].prefetch([strategy for strategy in strategies if strategy is not None])


def _unwrapped(env: gym.Env[Any, Any], action: Any) -> tuple[PruningEnv, Any]:
    """Return what is inside of all wrappers, and the action as it arrives there, if it is known."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.ActionWrapper):
            known = type(env) in _PURE or getattr(type(env), "pure", False)
            action = env.action(action) if known and action is not None else None
        env = env.env
    assert isinstance(env, PruningEnv)
    return env, action
