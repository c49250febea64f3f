"""Warm start: a new run's agent starts from the saved agent of another run, on any network."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfgcl_env.pruning import PruningProblem
from lfgcl_env.runs.run_folder import AGENT, RunFolder
from lfgcl_env.search.protocol import Agent

LARGEST_AGENT = 2**30
"""Bytes of the largest saved agent that is loaded: 1 GiB."""

_SHA = "init_from_sha256"


@dataclass(frozen=True)
class SavedAgent:
    """The saved agent of another run.

    Attributes:
        run: its folder.
        sha256: of the file, so that a resumed run starts from the same one.
    """

    run: Path
    sha256: str

    @property
    def arguments(self) -> dict[str, str]:
        """The arguments that a run records of it."""
        return {"init_from": str(self.run), _SHA: self.sha256}


def find_saved_agent(run: str | os.PathLike[str], agent: str) -> SavedAgent:
    """Find the saved agent of a run.

    Args:
        run: its folder.
        agent: name of the agent that is to start from it.

    Raises:
        FileNotFoundError: if there is no run, or no saved agent in it.
        ValueError: if that run's agent was another.
    """
    folder = RunFolder(os.path.abspath(run))
    if not folder.begun:
        raise FileNotFoundError(f"there is no run to start from in {run}")
    made_by = folder.described()["arguments"].get("agent")
    if made_by != agent:
        raise ValueError(
            f"the run in {run} was made by the agent {made_by!r}, from which {agent!r} cannot "
            f"start: give --agent {made_by}, or another run"
        )
    path = folder.path / AGENT
    if not path.is_file():
        raise FileNotFoundError(
            f"the run in {run} has no {AGENT}: it has not ended, or its agent cannot be saved"
        )
    if path.stat().st_size > LARGEST_AGENT:
        raise ValueError(f"{path} is longer than {LARGEST_AGENT:,} bytes")
    with path.open("rb") as file:
        return SavedAgent(folder.path, hashlib.file_digest(file, "sha256").hexdigest())


def load_into(saved: SavedAgent, agent: Agent, problem: PruningProblem) -> None:
    """Load a saved agent into a new one by ``set_parameters`` of the agents' protocol.

    Args:
        saved: from :func:`find_saved_agent`.
        agent: the new agent, which is changed.
        problem: what it is to prune.

    Raises:
        ValueError: if the agent has no ``set_parameters``, or the saved one does not fit.
    """
    set_parameters: Any = getattr(agent, "set_parameters", None)
    if not callable(set_parameters):
        raise ValueError(
            f"the agent {type(agent).__name__} cannot start from a saved agent: it has no "
            "set_parameters(path), see lfgcl_env.search.protocol"
        )
    try:
        set_parameters(saved.run / AGENT)
    except Exception as error:
        there, here = _groups(saved.run), len(problem.groups)
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if there and there != here:
            reason = f"it was trained on {there} groups of channels, here are {here}, and it is "
            reason += "bound to their number"
        raise ValueError(f"the agent saved in {saved.run} does not fit here ({reason})") from error


def check_same_start(run: RunFolder, saved: SavedAgent | None) -> None:
    """Check that a resumed run starts from the same saved agent as before.

    Raises:
        ValueError: if it does not.
    """
    recorded = run.described()["arguments"]
    if recorded.get(_SHA) == (saved and saved.sha256):
        return
    now = str(saved.run) if saved else None
    changed = ", whose agent has changed since" if recorded.get("init_from") == now else ""
    raise ValueError(
        f"the run in {run.path} was begun with init_from={recorded.get('init_from')!r} and cannot "
        f"go on with {now!r}{changed}"
    )


def _groups(run: Path) -> int | None:
    """Return how many groups a run's strategies have; None if it has no evaluations."""
    records = RunFolder(run).records()
    return len(records[0].evaluation.keep) if records else None
