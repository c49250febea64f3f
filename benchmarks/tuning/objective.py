"""The objective of tuning: the anytime performance of an algorithm on an environment."""

import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np

import lfgcl_env
from lfgcl_env import zoo
from lfgcl_env.search.record_evaluations import RecordEvaluations
from tuning.spaces import Settings

REPORT_EVERY = 50
"""Evaluations between calls of ``watch``."""

MOST_STEPS = 3
"""Steps for every evaluation, at most: an agent that repeats itself keeps its best."""


@cache
def environment(env_id: str, images: int, similarity: str, budget: float) -> gym.Env[Any, Any]:
    """Make an environment, once."""
    assert lfgcl_env  # registers the ids
    return gym.make(
        env_id,
        weights="published",
        images="CIFAR10",
        num_images=images,
        similarity=similarity,
        budget=budget,
    )


def curve_of(
    algorithm: str,
    settings: Settings,
    env: gym.Env[Any, Any],
    seed: int,
    evaluations: int,
    watch: Callable[[Sequence[float]], None] = lambda curve: None,
) -> tuple[list[float], float]:
    """Return the best reward after every evaluation, and the processor time of one [s].

    Args:
        algorithm: a name of :data:`lfgcl_env.zoo.ALGORITHMS`.
        settings: all of them, as in a file.
        env: an environment of this package.
        seed: of the agent.
        evaluations: distinct strategies to score.
        watch: called with the curve so far every ``REPORT_EVERY`` evaluations.
    """
    env.get_wrapper_attr("forget")()
    recorded = RecordEvaluations(env, [], lambda record, new: None)
    begun = time.process_time()
    agent = zoo.make(algorithm, recorded, seed, **settings)
    watched = 0

    def go_on(_locals: Settings, _globals: Settings) -> bool:
        nonlocal watched
        scored = len(recorded.records)
        if scored // REPORT_EVERY > watched:
            watched = scored // REPORT_EVERY
            watch(_best_so_far(recorded))
        return scored < evaluations

    agent.learn(MOST_STEPS * evaluations, callback=go_on)
    curve = _best_so_far(recorded)
    seconds = (time.process_time() - begun) / len(curve)
    return curve + (evaluations - len(curve)) * curve[-1:], seconds


def anytime(curve: Sequence[float]) -> float:
    """Return the best at the end plus the mean of the best so far, the area under the curve."""
    return curve[-1] + float(np.mean(curve))


def _best_so_far(recorded: RecordEvaluations) -> list[float]:
    rewards = [record.reward for record in recorded.records.values()]
    return [float(best) for best in np.maximum.accumulate(rewards)]
