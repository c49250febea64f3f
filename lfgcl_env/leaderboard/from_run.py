"""A leaderboard's entry from a run folder."""

import os
from typing import Any

import gymnasium as gym

from lfgcl_env.config import LayerwiseConfig, defaults
from lfgcl_env.envs.registration import GLOBAL_IDS, LAYERWISE_IDS
from lfgcl_env.leaderboard.entry import Entry, checked, problem_arguments
from lfgcl_env.runs.best import read_best
from lfgcl_env.runs.run_folder import RunFolder


def entry_of_run(path: str | os.PathLike[str], author: str) -> Entry:
    """Make an entry of what a search kept in its run folder, from Python or from the command.

    It claims the strategy's MACs and similarity, which everybody can measure anew, and no accuracy:
    that of the run's network depends on all the images that it was repaired on. It is checked
    before anything is measured, as an entry in a file is.

    Args:
        path: the run folder.
        author: who adds it.

    Raises:
        FileNotFoundError: if there is no run, or it has not ended.
        ValueError: if the run is one on a range of budgets, on a network or images that not
            everybody has, or damaged or edited.
    """
    run = RunFolder(path)
    asked = run.asked()
    environment = asked["environment"].removeprefix("lfgcl_env:")
    if environment not in GLOBAL_IDS | LAYERWISE_IDS:
        raise ValueError(f"the run in {run.path} is on {environment!r}, which is not of lfgcl_env")
    if isinstance(asked.get("budget"), list):
        raise ValueError(f"the run in {run.path} is on a range of budgets; an entry is on one")
    best = read_best(run.path)
    of_id = gym.spec(environment).kwargs
    given = {name: asked[name] for name in problem_arguments() if name in asked}
    settings = {name: best.settings[name] for name in problem_arguments() if name in best.settings}
    bound = "max_prune_ratio"
    if environment in LAYERWISE_IDS and settings.get(bound) == defaults(LayerwiseConfig)[bound]:
        given.pop(bound, None)  # what AMC bounds by itself is no part of the problem
        settings.pop(bound)
    entry = Entry(
        method=asked["agent"] + _elsewhere(environment, asked),
        author=author,
        evaluations=best.evaluations_with_shortlist,
        problem=of_id | given | settings,
        keep={group.name: group.keep for group in best.groups},
        macs=best.macs,
        similarity=best.similarity,
    )
    try:
        return checked(entry)
    except ValueError as error:
        raise ValueError(f"the run in {run.path} gives no entry: {error}") from error


def _elsewhere(environment: str, asked: dict[str, Any]) -> str:
    """Say where an agent ran, and for which reward, if not for similarity in the global one."""
    layerwise = environment in LAYERWISE_IDS
    reward = asked.get("reward") or ("accuracy" if layerwise else "similarity")
    if layerwise:
        return f" (AMC, {reward})"
    return "" if reward == "similarity" else f" ({reward})"
