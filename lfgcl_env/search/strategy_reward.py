"""The reward of a given strategy in a given environment, wrappers included."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isclose
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np

from lfgcl_env.pruning import Evaluation
from lfgcl_env.runs.record import Record
from lfgcl_env.search.record_evaluations import problem_of
from lfgcl_env.search.return_so_far import ReturnSoFar


@dataclass(frozen=True)
class Rewarded:
    """A strategy and its reward.

    Attributes:
        evaluation: of the strategy.
        reward: the episode's return up to the step that scored it, wrappers included.
        budget: of that episode.
        origin: ``"search"``, ``"prediction"`` or ``"allocation"``.
    """

    evaluation: Evaluation
    reward: float
    budget: float
    origin: str = "search"


_Scored = TypeVar("_Scored", Record, Rewarded, Record | Rewarded)


def reward_of(env: gym.Env[Any, Any], keep: tuple[int, ...], budget: float) -> float | None:
    """Play an episode up to the step that scores a strategy, and return its return.

    Args:
        env: an environment of this package, wrapped or not.
        keep: channels kept in every group.
        budget: of the episode.

    Returns:
        The return, or None if the actions do not lead to this strategy: a layerwise environment
        bounds them, and a wrapper may change them.
    """
    ratios = problem_of(env).prune_ratios(keep).astype(np.float32)
    layerwise = getattr(env.unwrapped, "steps_per_strategy", 1) > 1
    played = ReturnSoFar(env)
    played.reset(options={"budget": budget})
    reward, info = 0.0, dict[str, Any]()
    for action in ratios[:, None] if layerwise else ratios[None]:
        _, reward, _, _, info = played.step(action)
    executed = tuple(int(count) for count in info["keep"])
    return reward if executed == tuple(keep) else None


def rewarded(
    env: gym.Env[Any, Any], keep: tuple[int, ...], budget: float, origin: str
) -> Rewarded | None:
    """Return a strategy with its reward; None where :func:`reward_of` has none."""
    reward = reward_of(env, keep, budget)
    if reward is None:
        return None
    return Rewarded(problem_of(env).evaluate(keep), reward, budget, origin)


def rewards_are_scores(env: gym.Env[Any, Any], strategies: Iterable[Rewarded]) -> bool:
    """Return whether no wrapper changed the rewards of these strategies.

    Only then does ``env.unwrapped.score``, which knows no wrapper, judge networks by what the user
    rewards. The strategies are looked up in the unwrapped environment, which costs no evaluation.
    """
    for one in strategies:
        score = reward_of(env.unwrapped, one.evaluation.keep, one.budget)
        if score is not None and not isclose(score, one.reward, rel_tol=1e-9, abs_tol=1e-9):
            return False
    return True


def best_first(strategies: Iterable[_Scored]) -> list[_Scored]:
    """Sort by reward, the highest first; of equal ones that with fewer MACs."""
    return sorted(strategies, key=lambda one: (-one.reward, one.evaluation.macs))
