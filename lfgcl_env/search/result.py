"""What a search comes to: its result, finished networks, and what it leaves in its run folder."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
from torch import Tensor, nn

from lfgcl_env.edge.files import write_beside, write_text
from lfgcl_env.pruning import Evaluation, PruningProblem
from lfgcl_env.runs import report
from lfgcl_env.runs.run_folder import AGENT, PRUNED, Record
from lfgcl_env.search.budget_sweep import Point, ask, sweep
from lfgcl_env.search.protocol import Agent, AgentError, agents_errors
from lfgcl_env.search.record_evaluations import budgets_of, problem_of
from lfgcl_env.search.shortlist import Shortlisted, choose
from lfgcl_env.search.sweep_files import SweepFiles


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: the strategy with the highest similarity, of equal ones that with fewer MACs; with a
            shortlist its winner, which may be the allocation by sensitivities instead. With
            ``rewarded="accuracy"`` that with the highest accuracy, and the only one on its
            shortlist. After a search over a range of budgets, that of the sweep's last point, at
            the highest budget: similarities on different budgets cannot be compared.
        records: of all distinct strategies, in the order in which they were scored.
        steps: of the environment, repeated strategies included.
        ended: why the search ended.
        agent: as it was at the end.
        folder: the run folder, if there is one.
        shortlist: what was repaired sequentially, from the best to the worst.
        network: the winner of the shortlist, repaired; None without a shortlist.
        sweep: the points of a search over a range of budgets, from the lowest to the highest; empty
            for one budget. They have networks and shortlists of their own, whatever is rewarded by
            similarity.
        rewarded: what the environment rewards: ``"similarity"``, or ``"accuracy"`` on labels.
    """

    best: Evaluation
    records: tuple[Record, ...]
    steps: int
    ended: str
    agent: Agent
    folder: Path | None
    shortlist: tuple[Shortlisted, ...] = ()
    network: nn.Module | None = None
    sweep: tuple[Point, ...] = ()
    rewarded: str = "similarity"


def with_shortlist(
    found: SearchResult,
    problem: PruningProblem,
    images: Tensor | None,
    size: int,
    say: Callable[[str], None],
) -> SearchResult:
    """Repair the best strategies of a search on one budget, keep one, and write it."""
    if images is not None:
        evaluations = [record.evaluation for record in found.records]
        if found.rewarded == "accuracy":  # similarity has no say in it
            evaluations, size = [found.best], 1
        network, listed = choose(problem, evaluations, images, size=size, say=say)
        found = replace(found, best=listed[0].searched, shortlist=tuple(listed), network=network)
    if found.folder:
        kept = found.network or problem.compress(found.best.keep)
        facts = _facts(found) | {"evaluations_with_shortlist": problem.evaluations}
        if images is not None:
            facts["repair_images"] = len(images)
        _write_best(found.folder, problem, found.best, kept, found.shortlist, facts, say)
    return found


def with_sweep(
    found: SearchResult,
    env: gym.Env[Any, Any],
    budgets: Sequence[float],
    images: Tensor | None,
    size: int,
    say: Callable[[str], None],
) -> SearchResult:
    """Ask the agent for every budget and make a sweep; points finished before are kept."""
    problem = problem_of(env)
    visited = [record.evaluation for record in found.records]
    with agents_errors("when it was asked for a budget"):
        predicted = ask(env, found.agent, budgets)
    points: list[Point] = []
    files: SweepFiles | None = None
    if found.folder:
        files = SweepFiles(found.folder, problem)
        settings = problem.settings() | {"budget": list(budgets_of(env))}
        facts = {"budgets": budgets, "shortlist": size, "settings": settings}
        points = files.begin(_facts(found) | facts)
    for point in points:
        for listed in point.shortlist:
            problem.remember(listed.searched)  # counts as if it had been scored in this process
    finished = {point.budget for point in points}
    left = [pair for pair in zip(budgets, predicted, strict=True) if pair[0] not in finished]
    for point in sweep(
        problem,
        [budget for budget, _ in left],
        [own for _, own in left],
        [*visited, *predicted],
        images,
        size=size,
        say=say,
    ):
        points.append(point)
        if files:
            files.add(point)
    if files:
        files.draw(visited, say)
    points.sort(key=lambda point: point.budget)
    return replace(found, best=points[-1].searched, sweep=tuple(points))


def _facts(found: SearchResult) -> dict[str, Any]:
    return {"evaluations": len(found.records), "steps": found.steps, "ended": found.ended}


def best_of(records: Sequence[Record], rewarded: str) -> Evaluation:
    """Return the highest similarity's or accuracy's evaluation; of equal ones that with fewer MACs.

    Rewards are similarities only in episodes of one step, and accuracies always.
    """

    def score(record: Record) -> float:
        return record.reward if rewarded == "accuracy" else record.evaluation.similarity

    return min(records, key=lambda record: (-score(record), record.evaluation.macs)).evaluation


def save_agent(agent: Agent, folder: Path) -> None:
    """Save an agent that can be saved.

    Raises:
        AgentError: if it fails to.
    """
    save = getattr(agent, "save", None)
    if callable(save):
        try:
            write_beside(folder / AGENT, save)
        except Exception as error:
            raise AgentError(f"the agent cannot be saved in {folder}") from error


def _write_best(
    folder: Path,
    problem: PruningProblem,
    best: Evaluation,
    network: nn.Module,
    shortlist: Sequence[Shortlisted],
    facts: Mapping[str, Any],
    say: Callable[[str], None],
) -> None:
    """Write the network of a search on one budget, what changed in it, and how it was found.

    Args:
        folder: the run folder.
        problem: what was searched.
        best: the evaluation of what is kept.
        network: the network, compressed and repaired.
        shortlist: what it was chosen from; empty without one.
        facts: of the search, for ``best.json``.
        say: is told how to get what is not installed.

    Raises:
        OSError: if a file cannot be written.
    """
    repaired = shortlist[0].repaired if shortlist else None
    problem.save(
        folder / PRUNED, best.keep, network, repaired=asdict(repaired) if repaired else None
    )
    table = report.compare_layers(problem.network, best.keep, network)
    title = report.format_headline(problem, best, repaired)
    write_text(folder / "report.txt", report.format_page(problem, table, title))
    if report.draw_layers(table, folder / "report.png", title) is None:
        say("no report.png: run `pip install lfgcl-env[plots]` to get one")
    ratios = problem.prune_ratios(best.keep).tolist()
    described = {
        **asdict(best),
        **facts,
        "settings": problem.settings(),
        "shortlist": [asdict(listed) for listed in shortlist],
        "groups": [
            {"name": g.name, "channels": g.channels, "keep": kept, "prune_ratio": ratio}
            for g, kept, ratio in zip(problem.groups, best.keep, ratios, strict=True)
        ],
    }
    write_text(folder / "best.json", json.dumps(described, indent=2) + "\n")
