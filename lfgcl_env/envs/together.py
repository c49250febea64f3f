"""Stepping several environments on one problem, so that workers score their strategies together."""

import logging
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any
from weakref import WeakSet

import gymnasium as gym
import numpy as np

from lfgcl_env.envs.choice import Choice
from lfgcl_env.envs.pruning_env import PruningEnv

_logger = logging.getLogger(__name__)

_told: WeakSet[type] = WeakSet()  # wrappers that were named in a warning

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
    others nothing is scored ahead, and a warning names them once, if there are several workers.

    Args:
        envs: those that :func:`twins` returned.
        actions: one for each.
    """
    own, strategies = _upcoming(envs, actions)
    own.prefetch(strategies)


def room_ahead(env: gym.Env[Any, Any], waiting: int) -> int:
    """Return how many strategies a search may propose beside those whose rewards it waits for.

    There is one for each worker. Where budgets differ among episodes, those that wait are all of
    one budget, and others are proposed when none of them is left. Where several steps make a
    strategy there is one at a time.

    Args:
        env: an environment, wrapped or not; one of another package has a single worker.
        waiting: strategies that were proposed and not stepped yet.
    """
    own: Any = env.unwrapped
    low, high = getattr(own, "budgets", (0, 0))
    if getattr(own, "steps_per_strategy", 1) > 1:
        return int(not waiting)
    if waiting and low != high:
        return 0
    return max(0, int(getattr(own, "workers", 1)) - waiting)


def begin_ahead(env: gym.Env[Any, Any], waiting: Sequence[Any], new: int) -> None:
    """Have the workers begin to score what actions lead to on this episode's budget.

    The steps themselves then wait for it. Instead of an action there may be a
    :class:`~lfgcl_env.envs.choice.Choice` of several: a worker screens them and scores the best,
    and ``env.unwrapped.scores_of`` waits for their cheap scores, by which the agent takes it. Near
    the end of a recorded search only as many are begun as are still to be recorded. Wrappers are
    followed as in :func:`score_ahead`.

    Args:
        env: an environment of this package, wrapped or not.
        waiting: all actions and choices that are to be stepped, in their order.
        new: how many of them, at the end, were not given before.
    """
    if getattr(env.unwrapped, "workers", 1) == 1 or not len(waiting):
        return
    name = "records_left"
    left = env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else None
    if left is not None and left < len(waiting):
        chosen = waiting[:left]
    else:
        chosen = waiting[len(waiting) - new :]
    for one in chosen:
        if not isinstance(one, Choice):
            own, strategies = _upcoming([env], [one])
            own.begin(strategies)
        elif _arrives_unchanged(env, one):
            env.unwrapped.begin_choice(one)  # type: ignore[attr-defined]


def _upcoming(
    envs: Sequence[gym.Env[Any, Any]], actions: Iterable[Any]
) -> tuple[PruningEnv, list[Any]]:
    """Return an environment without wrappers, and strategies, if those of all are known."""
    pairs = [_unwrapped(env, action) for env, action in zip(envs, actions, strict=True)]
    if any(action is None for _, action in pairs):
        return pairs[0][0], []
    strategies = [own.upcoming(action) for own, action in pairs]
    return pairs[0][0], [strategy for strategy in strategies if strategy is not None]


def _arrives_unchanged(env: gym.Env[Any, Any], choice: Choice) -> bool:
    """Return whether wrappers leave a choice's actions as they are, as they are screened."""
    inside = (_unwrapped(env, action)[1] for action in choice.actions)
    return all(map(np.array_equal, inside, choice.actions))


def _unwrapped(env: gym.Env[Any, Any], action: Any) -> tuple[PruningEnv, Any]:
    """Return what is inside of all wrappers, and the action as it arrives there, if it is known."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.ActionWrapper):
            known = type(env) in _PURE or getattr(type(env), "pure", False)
            if not known and getattr(env.unwrapped, "workers", 1) > 1:
                _tell_unknown(type(env))
            action = env.action(action) if known and action is not None else None
        env = env.env
    assert isinstance(env, PruningEnv)
    return env, action


def _tell_unknown(kind: type) -> None:
    if kind not in _told:
        _told.add(kind)
        _logger.warning(
            "workers have nothing to do: the wrapper %s may return another action at every call, "
            "so that strategies are scored one after the other in this process; `pure = True` in "
            "its class says that it does not",
            kind.__qualname__,
        )
