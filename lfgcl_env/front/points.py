"""Points of a front: the best of what an agent answers, what it visited, and the allocation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from torch import Tensor, nn

from lfgcl_env.agent import Agent
from lfgcl_env.pruning import Evaluation, PruningProblem
from lfgcl_env.shortlist import Shortlisted, choose
from lfgcl_env.visits import problem_of


@dataclass(frozen=True)
class Point:
    """One budget of a front.

    Attributes:
        budget: fraction of the baseline's cost that may remain.
        predicted: the agent's answer.
        origin: of what was kept: ``"prediction"``, ``"search"`` or ``"allocation"``.
        searched: the evaluation of what was kept, with the problem's cheap repair.
        repaired: after sequential repair; None without a shortlist.
        shortlist: what was repaired and compared, from the best to the worst.
        evaluations: distinct strategies scored until this point was finished, those of the search,
            all predictions, and the sensitivities included.
        network: the network, as it is saved.
    """

    budget: float
    predicted: Evaluation
    origin: str
    searched: Evaluation
    repaired: Evaluation | None
    shortlist: tuple[Shortlisted, ...]
    evaluations: int
    network: nn.Module = field(compare=False, repr=False)


def spaced(low: float, high: float, count: int) -> tuple[float, ...]:
    """Budgets at equal distances, both ends included.

    Args:
        low: the first.
        high: the last.
        count: how many, at least 2.

    Raises:
        ValueError: if there are fewer.

    >>> spaced(0.3, 0.8, 6)
    (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 2:
        raise ValueError(f"a front has a whole number of at least 2 budgets, got {count!r}")
    between = np.linspace(low, high, count)[1:-1].round(6).tolist()
    return (low, *between, high)


def label(budget: float) -> str:
    """A budget with at least two digits, as files and logs are named after it.

    >>> label(0.3), label(0.375)
    ('0.30', '0.375')
    """
    whole, _, digits = f"{budget:.6f}".rstrip("0").partition(".")
    return f"{whole}.{digits:0<2}"


def meets(evaluation: Evaluation, budget: float, metric: str) -> bool:
    """Whether a strategy costs no more than a budget of ``"macs"`` or ``"params"``."""
    spent: float = getattr(evaluation, f"{metric}_ratio")
    return spent <= budget * (1 + 1e-12)


def ask(env: gym.Env[Any, Any], agent: Agent, budgets: Sequence[float]) -> tuple[Evaluation, ...]:
    """Ask an agent for a strategy on every budget, without exploration, and score it.

    An agent that does not look at the budget gives one answer, which is projected onto each.

    Args:
        env: what the agent was made for.
        agent: see :class:`~lfgcl_env.agent.Agent`.
        budgets: fractions of the baseline's cost, in the agent's range or outside it.

    Returns:
        The evaluation of each answer; the problem counts those not scored before.

    Raises:
        ValueError: if a budget cannot be reached, or the agent's answer is no action.
    """
    problem = problem_of(env)
    for budget in budgets:
        problem.check_budget(budget)
    return tuple(problem.evaluate(answer(env, agent, budget)) for budget in budgets)


def answer(env: gym.Env[Any, Any], agent: Agent, budget: float) -> tuple[int, ...]:
    """Let an agent play one episode on a budget without exploration; return its last strategy."""
    vectorised = getattr(agent, "get_env", None)
    if vectorised is not None:
        return _vectorised_answer(vectorised(), agent, budget)
    own = getattr(agent, "env", None)
    view: gym.Env[Any, Any] = own if isinstance(own, gym.Env) else env
    observation, info = view.reset(options={"budget": budget})
    over = False
    while not over:
        action, _ = agent.predict(observation, deterministic=True)
        observation, _, terminated, truncated, info = view.step(action)
        over = terminated or truncated
    return _strategy(info)


def _vectorised_answer(envs: Any, agent: Any, budget: float) -> tuple[int, ...]:
    """The same for Stable-Baselines3, whose agents see vectorised environments only."""
    envs.set_options({"budget": budget})
    observations, state = envs.reset(), None
    while True:
        actions, state = agent.predict(observations, state=state, deterministic=True)
        observations, _, over, infos = envs.step(actions)
        if over[0]:
            return _strategy(infos[0])


def _strategy(info: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(count) for count in info["channels"])


def front(
    problem: PruningProblem,
    budgets: Sequence[float],
    predicted: Sequence[Evaluation],
    visited: Sequence[Evaluation],
    images: Tensor | None = None,
    *,
    size: int = 8,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Point]:
    """Make the best network for every budget, one after the other.

    Args:
        problem: what was searched.
        budgets: fractions of the baseline's cost.
        predicted: the agent's answer for each, from :func:`ask`.
        visited: what the search scored, and anything else to choose from, on any budget.
        images: other unlabelled images, to repair on, see :func:`~lfgcl_env.shortlist.choose`;
            None keeps the best as it was scored.
        size: how many strategies are repaired and compared for a budget.
        say: is told how it goes.

    Yields:
        The points in the order of ``budgets``, each as soon as it is finished.

    Raises:
        ValueError: if ``torch.fx`` cannot trace the network.
    """
    for budget, own in zip(budgets, predicted, strict=True):
        within = [e for e in visited if meets(e, budget, problem.budget_metric)]
        if images is None:
            best = min([own, *within], key=lambda e: (-e.similarity, e.macs))
            origin = "prediction" if best.keep == own.keep else "search"
            network = problem.compress(best.keep)
            yield Point(budget, own, origin, best, None, (), problem.evaluations, network)
            continue
        network, listed = choose(
            problem, within, images, size=size, budget=budget, predicted=own,
            say=lambda text, budget=budget: say(f"budget {label(budget)}, {text}"),  # type: ignore[misc]
        )  # fmt: skip
        kept = listed[0]
        yield Point(
            budget, own, kept.origin, kept.searched, kept.repaired, tuple(listed),
            problem.evaluations, network,
        )  # fmt: skip
