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
    """Have the workers score what the next step of every environment leads to, and wait for it.

    The steps themselves then look it up. Action wrappers are followed that are known to do the same
    at every call: some of Gymnasium's, and those with a true attribute ``pure``. Where there are
    others nothing is scored ahead.

    Args:
        envs: those that :func:`twins` returned.
        actions: one for each.
    """
    own, strategies = _upcoming(envs, actions)
    own.prefetch(strategies)


def room_ahead(env: gym.Env[Any, Any], waiting: int) -> int:
    """Return how many strategies a search may propose beside those whose rewards it waits for.

    There is one for each worker, but no more than are still to be recorded. What is scored ahead is
    scored on the budget of this episode: where episodes have several, or several steps
    make a strategy, nothing joins those that wait.

    Args:
        env: an environment, wrapped or not; one of another package has a single worker.
        waiting: strategies that were proposed and not stepped yet.
    """
    own: Any = env.unwrapped
    low, high = getattr(own, "budgets", (0, 0))
    alone = low != high or getattr(own, "steps_per_strategy", 1) > 1
    if waiting and alone:
        return 0
    left = env.get_wrapper_attr("left") if env.has_wrapper_attr("left") else None
    workers = int(getattr(own, "workers", 1))
    return max(min(workers, workers if left is None else left) - waiting, int(not waiting))


def begin_ahead(env: gym.Env[Any, Any], actions: Sequence[Any]) -> None:
    """Have the workers begin to score what actions lead to on this episode's budget.

    The steps themselves then wait for it. Wrappers are followed as in :func:`score_ahead`.

    Args:
        env: an environment of this package, wrapped or not.
        actions: that are to be stepped.
    """
    if len(actions) and getattr(env.unwrapped, "workers", 1) > 1:
        own, strategies = _upcoming([env] * len(actions), actions)
        own.begin(strategies)


def _upcoming(
    envs: Sequence[gym.Env[Any, Any]], actions: Iterable[Any]
) -> tuple[PruningEnv, list[Any]]:
    """Return an environment without wrappers, and strategies, if those of all are known."""
    pairs = [_unwrapped(env, action) for env, action in zip(envs, actions, strict=True)]
    if any(action is None for _, action in pairs):
        return pairs[0][0], []
    strategies = [own.upcoming(action) for own, action in pairs]
    return pairs[0][0], [strategy for strategy in strategies if strategy is not None]


def _unwrapped(env: gym.Env[Any, Any], action: Any) -> tuple[PruningEnv, Any]:
    """Return what is inside of all wrappers, and the action as it arrives there, if it is known."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.ActionWrapper):
            known = type(env) in _PURE or getattr(type(env), "pure", False)
            action = env.action(action) if known and action is not None else None
        env = env.env
    assert isinstance(env, PruningEnv)
    return env, action
