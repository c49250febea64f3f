"""Running an agent on an environment: keep the best strategy, log, and go on after a stop."""

import json
import os
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from lfgcl_env import report
from lfgcl_env.agent import Agent, AgentFactory, find_agent
from lfgcl_env.logs import check_wandb, open_logs
from lfgcl_env.pruning import Evaluation, PruningProblem
from lfgcl_env.pruning.lockstep import trace
from lfgcl_env.runs import PRUNED, Record, RunFolder, RunWriteError, write_beside
from lfgcl_env.shortlist import Shortlisted, choose
from lfgcl_env.visits import Visits, problem_of

STEPS_PER_EVALUATION = 10
"""An agent that only repeats itself is stopped after so many steps for every evaluation."""

_SAME = 1e-3  # similarities of one strategy under other versions or threads differ by far less


class AgentError(RuntimeError):
    """An agent raised; the cause is its exception. What was scored is kept."""


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: the strategy with the highest similarity, of equal ones that with fewer MACs; with a
            shortlist its winner, which may be the allocation by sensitivities instead.
        records: of all distinct strategies, in the order in which they were scored.
        steps: of the environment, repeated strategies included.
        ended: why the search ended.
        agent: as it was at the end.
        folder: the run folder, if there is one.
        shortlist: what was repaired sequentially, from the best to the worst.
        network: the winner of the shortlist, repaired; None without a shortlist.
    """

    best: Evaluation
    records: tuple[Record, ...]
    steps: int
    ended: str
    agent: Agent
    folder: Path | None
    shortlist: tuple[Shortlisted, ...] = ()
    network: nn.Module | None = None


def search(
    env: gym.Env[Any, Any],
    agent: str | AgentFactory = "ddpg",
    evaluations: int = 400,
    *,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    arguments: Mapping[str, Any] | None = None,
    may_differ: Sequence[str] = (),
    shortlist: int = 0,
    repair_images: Tensor | None = None,
    progress: bool = False,
    wandb: bool = False,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
) -> SearchResult:
    """Let an agent search for the best strategy, as ``lfgcl prune`` does.

    With ``out``, every scored strategy is on disk before the agent goes on. A search that stopped,
    for whatever reason, goes on with ``resume=True``: the agent begins again with the same seed,
    what was scored is looked up, and so it comes to where it was. The result is that of a search
    that was never interrupted. The global random states are seeded, for agents that use them.

    Args:
        env: an environment of this package.
        agent: see :func:`lfgcl_env.agent.find_agent`, or a factory.
        evaluations: distinct strategies to score. The search also ends after
            ``STEPS_PER_EVALUATION`` times as many steps, or when the agent ends it.
        seed: of the agent.
        out: the run folder to write; None writes nothing.
        resume: go on with the run in ``out``.
        arguments: what else decides the search, to be recorded; by default the environment's id
            and keyword arguments.
        may_differ: names in ``arguments`` that a resumed search may change.
        shortlist: how many of the best strategies are repaired sequentially and compared before
            one is kept, see :mod:`lfgcl_env.shortlist`; 0 keeps the best as it was scored.
        repair_images: unlabelled images for that, better others than the environment's; float
            (images, channels, height, width), normalised.
        progress: show a progress bar on standard error.
        wandb: log to Weights & Biases.
        say: is told what the user should know.

    Raises:
        ValueError: if an argument is wrong, ``out`` holds a run and ``resume`` is not set, or the
            run there was begun with other arguments.
        OSError: if ``out`` cannot be written.
        ImportError: if a package is missing; names the extra to install.
        AgentError: if the agent raised, or scored nothing.
    """
    problem = problem_of(env)
    if not isinstance(evaluations, int) or isinstance(evaluations, bool) or evaluations < 1:
        raise ValueError(f"evaluations must be a whole number of at least 1, got {evaluations!r}")
    if (resume or wandb) and out is None:
        raise ValueError(f"{'resume' if resume else 'wandb'} needs out, the run folder")
    if shortlist and repair_images is None:
        raise ValueError(
            "a shortlist needs repair_images, such as env.unwrapped.other_images(1024)"
        )
    if shortlist:
        trace(problem.baseline.network)  # refuses what cannot be repaired before it is searched
    if wandb:
        check_wandb()
    factory = find_agent(agent) if isinstance(agent, str) else agent
    asked = {
        **(_described(env) if arguments is None else arguments),
        "agent": agent if isinstance(agent, str) else _name(agent),
        "evaluations": evaluations,
        "seed": seed,
    }
    run: RunFolder | None = None
    recorded: list[Record] = []
    if out is not None:
        run = RunFolder(out)
        recorded = _opened(run, problem, asked, resume=resume, may_differ=may_differ)
    with ExitStack() as stack:
        write = stack.enter_context(run.open_records(recorded)) if run else None
        logs = open_logs(
            run, problem, total=evaluations, arguments=asked,
            progress=progress, wandb=wandb, say=say,
        )  # fmt: skip
        stack.callback(logs.close)

        def tell(record: Record, new: bool) -> None:
            if new and write:
                write(record)
            logs.add(record)

        visits = Visits(env, recorded, tell, say)
        made = _learnt(factory, visits, seed, evaluations, run)
        records = visits.finish()
    if not records:
        raise AgentError("the agent ended its search without scoring a strategy")
    ended = _ended(len(records), visits.steps, evaluations)
    folder = run.path if run else None
    best, network = best_of(records), None
    listed: list[Shortlisted] = []
    if shortlist and repair_images is not None:
        evaluations_of = [record.evaluation for record in records]
        network, listed = choose(problem, evaluations_of, repair_images, size=shortlist, say=say)
        best = listed[0].searched
    result = SearchResult(
        best, tuple(records), visits.steps, ended, made, folder, tuple(listed), network
    )
    if folder:
        _write_results(result, folder, problem, say)
    return result


def best_of(records: Sequence[Record]) -> Evaluation:
    """Return the highest similarity's evaluation; of equal ones that with fewer MACs."""
    return min((r.evaluation for r in records), key=lambda e: (-e.similarity, e.macs))


def _ended(scored: int, steps: int, evaluations: int) -> str:
    if scored >= evaluations:
        return f"{scored} strategies were scored"
    if steps >= STEPS_PER_EVALUATION * evaluations:
        return f"the agent repeats itself: {scored} distinct strategies in {steps} steps"
    return f"the agent ended it after {scored} strategies"


def _learnt(
    factory: AgentFactory,
    env: Visits,
    seed: int,
    evaluations: int,
    run: RunFolder | None,
) -> Agent:
    """Make the agent and let it learn; its exceptions are told from everybody else's."""
    limit = STEPS_PER_EVALUATION * evaluations

    def go_on(_locals: dict[str, Any], _globals: dict[str, Any]) -> bool:
        return len(env.records) < evaluations and env.steps < limit

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - for agents that use the global state
    torch.manual_seed(seed)
    try:
        agent = factory(env, seed)
        agent.learn(total_timesteps=limit, callback=go_on)
    except RunWriteError:
        raise
    except Exception as error:
        kept = f", which are kept in {run.path}" if run else ""
        raise AgentError(
            f"the agent raised {type(error).__name__} after {len(env.records)} evaluations{kept}"
        ) from error
    return agent


def _opened(
    run: RunFolder,
    problem: PruningProblem,
    asked: Mapping[str, Any],
    *,
    resume: bool,
    may_differ: Sequence[str],
) -> list[Record]:
    """Begin a run or open one to go on with, and return what it has scored."""
    if not resume:
        run.check_new()
        run.begin(asked)
        return []
    records = run.records()
    run.check_same(asked, may_differ, len(records))
    if records:
        first = records[0].evaluation
        problem.remember(first)  # refuses what is not of this problem before it is run
        del problem.memory[first.keep]
        now = problem.evaluate(first.keep).similarity
        if abs(now - first.similarity) > _SAME:
            raise ValueError(
                f"the run in {run.path} cannot go on: its first strategy had similarity "
                f"{first.similarity:.6f} and has {now:.6f} now, so that images, weights or "
                "versions have changed"
            )
    run.go_on(asked)
    return records


def _write_results(
    result: SearchResult, folder: Path, problem: PruningProblem, say: Callable[[str], None]
) -> None:
    best = result.best
    network = result.network or problem.compress(best.keep)
    repaired = result.shortlist[0].repaired if result.shortlist else None
    after = f" ({repaired.similarity:.4f} repaired)" if repaired else ""
    problem.save(
        folder / PRUNED, best.keep, network, repaired=asdict(repaired) if repaired else None
    )
    table = report.rows(problem, best.keep, network)
    title = (
        f"{problem.similarity} similarity {best.similarity:.4f}{after}, "
        f"MACs {best.macs_ratio:.1%}, params {best.params_ratio:.1%} of the baseline's"
    )
    text = f"{title}\n\n{report.text(table)}"
    write_beside(folder / "report.txt", lambda path: path.write_text(text, encoding="utf-8"))
    if report.picture(table, folder / "report.png", title) is None:
        say("no report.png: run `pip install lfgcl-env[plots]` to get one")
    ratios = problem.prune_ratios(best.keep).tolist()
    described = {
        **asdict(best),
        "evaluations": len(result.records),
        "evaluations_with_shortlist": problem.evaluations,
        "steps": result.steps,
        "ended": result.ended,
        "settings": problem.settings(),
        "shortlist": [asdict(listed) for listed in result.shortlist],
        "groups": [
            {"name": g.name, "channels": g.channels, "keep": kept, "prune_ratio": ratio}
            for g, kept, ratio in zip(problem.groups, best.keep, ratios, strict=True)
        ],
    }
    write_beside(
        folder / "best.json", lambda path: path.write_text(json.dumps(described, indent=2) + "\n")
    )
    save = getattr(result.agent, "save", None)
    if callable(save):
        try:
            write_beside(folder / "agent.zip", save)
        except Exception as error:
            raise AgentError(f"the agent cannot be saved in {folder}") from error


def _described(env: gym.Env[Any, Any]) -> dict[str, Any]:
    """The environment's id and keyword arguments; what is no JSON by its type."""
    if env.spec is None:
        return {"environment": type(env.unwrapped).__name__}
    plain = json.dumps(dict(env.spec.kwargs), default=lambda value: type(value).__name__)
    return {"environment": env.spec.id, **json.loads(plain)}


def _name(factory: AgentFactory) -> str:
    return f"{factory.__module__}:{getattr(factory, '__qualname__', type(factory).__name__)}"
