"""Any network: a new run's agent begins with what the agent of another run learnt."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfgcl_env.pruning import PruningProblem
from lfgcl_env.runs.run_folder import AGENT, RunFolder
from lfgcl_env.search.protocol import Agent

_SHA = "init_from_sha256"


@dataclass(frozen=True)
class Learnt:
    """The saved agent of another run.

    Attributes:
        run: its folder.
        sha256: of the file, so that a resumed run begins with the same one.
    """

    run: Path
    sha256: str

    @property
    def arguments(self) -> dict[str, str]:
        """What a run records of it."""
        return {"init_from": str(self.run), _SHA: self.sha256}


def find_learnt(run: str | os.PathLike[str], agent: str) -> Learnt:
    """Find what the agent of a run learnt.

    Args:
        run: its folder.
        agent: name of the agent that is to begin with it.

    Raises:
        FileNotFoundError: if there is no run, or no saved agent in it.
        ValueError: if another agent made that run.
    """
    folder = RunFolder(os.path.abspath(run))
    if not folder.begun:
        raise FileNotFoundError(f"there is no run to begin from in {run}")
    made_by = folder.described()["arguments"].get("agent")
    if made_by != agent:
        raise ValueError(
            f"the run in {run} was made by the agent {made_by!r}, from which {agent!r} cannot "
            f"begin: give --agent {made_by}, or another run"
        )
    path = folder.path / AGENT
    if not path.is_file():
        raise FileNotFoundError(
            f"the run in {run} has no {AGENT}: it has not ended, or its agent cannot be saved"
        )
    return Learnt(folder.path, hashlib.sha256(path.read_bytes()).hexdigest())


def hand_over(learnt: Learnt, agent: Agent, problem: PruningProblem) -> None:
    """Give an agent what another one learnt, by ``set_parameters`` of the agents' protocol.

    Args:
        learnt: from :func:`find_learnt`.
        agent: a new one, which is changed.
        problem: what it is to prune.

    Raises:
        ValueError: if the agent cannot take it over, or it does not fit.
    """
    set_parameters: Any = getattr(agent, "set_parameters", None)
    if not callable(set_parameters):
        raise ValueError(
            f"the agent {type(agent).__name__} cannot begin from a run: it has no "
            "set_parameters(path), see lfgcl_env.search.protocol"
        )
    try:
        set_parameters(learnt.run / AGENT)
    except Exception as error:
        there, here = _groups(learnt.run), len(problem.groups)
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if there and there != here:
            reason = f"it learnt on {there} groups of channels, here are {here}, and it is bound "
            reason += "to their number"
        raise ValueError(
            f"what the agent in {learnt.run} learnt does not fit here ({reason})"
        ) from error


def check_same_start(run: RunFolder, learnt: Learnt | None) -> None:
    """Make sure that a resumed run begins with the same agent as it did.

    Raises:
        ValueError: if it does not.
    """
    recorded = run.described()["arguments"]
    if recorded.get(_SHA) == (learnt and learnt.sha256):
        return
    now = str(learnt.run) if learnt else None
    changed = ", whose agent has changed since" if recorded.get("init_from") == now else ""
    raise ValueError(
        f"the run in {run.path} was begun with init_from={recorded.get('init_from')!r} and cannot "
        f"go on with {now!r}{changed}"
    )


def _groups(run: Path) -> int | None:
    """How many groups a run's strategies have, if it scored any."""
    records = RunFolder(run).records()
    return len(records[0].evaluation.keep) if records else None
