"""A budget sweep: asking one agent for every budget of a range, and a network for each.

An agent that learns on a range of budgets sees the budget of every episode, so it can be asked for
any. :func:`lfgcl_env.search.run_search.run_search` does so at the end of a search over a range;
these are its parts, for programs::

    env = gym.make("LFGCL-ResNet20-v0", budget=(0.3, 0.8))
    result = run_search(env, "ddpg", 800)
    budgets = spaced(0.3, 0.8, 6)
    predicted = ask(env, result.agent, budgets)  # what the agent alone is worth
    visited = [record.evaluation for record in result.records]
    images = env.unwrapped.repair_images()
    points = list(sweep(env.unwrapped.problem, budgets, predicted, visited, images))

A point of the sweep is the best of three: what the agent predicts for the budget, what the search
visited within it (on whichever budget), and the allocation by sensitivities.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from torch import Tensor, nn

from lfgcl_env.pruning import Evaluation, PruningProblem
from lfgcl_env.pruning.budget.tolerance import label
from lfgcl_env.search.protocol import Agent
from lfgcl_env.search.record_evaluations import problem_of
from lfgcl_env.search.shortlist import Shortlisted, choose


@dataclass(frozen=True)
class Point:
    """One budget of a sweep.

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
        raise ValueError(f"a sweep has a whole number of at least 2 budgets, got {count!r}")
    between = np.linspace(low, high, count)[1:-1].round(6).tolist()
    return (low, *between, high)


def ask(env: gym.Env[Any, Any], agent: Agent, budgets: Sequence[float]) -> tuple[Evaluation, ...]:
    """Ask an agent for a strategy on every budget, without exploration, and score it.

    An agent that does not look at the budget gives one answer, which is projected onto each.

    Args:
        env: what the agent was made for.
        agent: see :class:`~lfgcl_env.search.protocol.Agent`.
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
    return tuple(int(count) for count in info["keep"])


def sweep(
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
        images: other unlabelled images, to repair on, see
            :func:`~lfgcl_env.search.shortlist.choose`; None keeps the best as it was scored.
        size: how many strategies are repaired and compared for a budget.
        say: is told how it goes.

    Yields:
        The points in the order of ``budgets``, each as soon as it is finished.

    Raises:
        ValueError: if ``torch.fx`` cannot trace the network.
    """
    for budget, own in zip(budgets, predicted, strict=True):
        within = [e for e in visited if e.meets(budget, problem.budget_metric)]
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
