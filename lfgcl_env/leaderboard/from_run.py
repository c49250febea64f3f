"""A leaderboard's entry from a run folder."""

import json
import os
from pathlib import Path
from typing import Any

from lfgcl_env.envs.registration import GLOBAL_IDS, LAYERWISE_IDS
from lfgcl_env.leaderboard.entry import OPTIONAL, REQUIRED, Entry
from lfgcl_env.runs.run_folder import RunFolder


def entry_of_run(path: str | os.PathLike[str], author: str) -> Entry:
    """Make an entry of what ``lfgcl prune`` kept in a run folder.

    It claims the strategy's MACs and similarity, which everybody can measure anew, and no accuracy:
    that of the run's network depends on all the images that it was repaired on.

    Args:
        path: the run folder.
        author: who adds it.

    Raises:
        FileNotFoundError: if there is no run, or it has not ended.
        ValueError: if the run is one on a range of budgets, or damaged.
    """
    run = RunFolder(path)
    asked = run.described()["arguments"]
    if isinstance(asked.get("budget"), list):
        raise ValueError(f"the run in {run.path} is on a range of budgets; an entry is on one")
    file = Path(path) / "best.json"
    if not file.is_file():
        raise FileNotFoundError(f"the run in {run.path} has no best.json: it has not ended")
    try:
        best: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        ids = GLOBAL_IDS | LAYERWISE_IDS
        given = asked | best["settings"] | {"network": ids.get(asked["target"], asked["target"])}
        return Entry(
            method=asked["agent"] + _elsewhere(asked),
            author=author,
            evaluations=best["evaluations_with_shortlist"],
            problem={
                name: given[name]
                for name in (*REQUIRED, *OPTIONAL)
                if name in REQUIRED or given.get(name) is not None
            },
            keep={group["name"]: group["keep"] for group in best["groups"]},
            macs=best["macs"],
            similarity=best["similarity"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged, or of another version ({error!r})") from error


def _elsewhere(asked: dict[str, Any]) -> str:
    """Where an agent ran, and for which reward, if not in the global environment."""
    if asked["target"] not in LAYERWISE_IDS:
        return ""
    return f" (AMC, {asked.get('reward') or 'accuracy'})"
