"""Searches go by cheap scores while these rank what is rewarded, and not a step further."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TransformAction, TransformReward
from lfgcl_env.agents._ask_tell import logits_of, prune_ratios
from lfgcl_env.agents._lfgcl_arguments import Arguments
from lfgcl_env.agents._screening import PROPOSALS, Screening
from lfgcl_env.agents.lfgcl import LFGCLAgent
from networks_for_tests import images
from test_agents import NEEDS, varied

import lfgcl_env  # noqa: F401 - registers the environments
from lfgcl_env.pruning import allocate
from lfgcl_env.search.protocol import find_agent
from lfgcl_env.search.run_search import run_search

SCREENED = ("allocation", "cma_es", "cross_entropy", "lfgcl", "one_plus_one", "tpe")
EVALUATIONS = 12


def make_env(**options):
    options = {"repair": "sequential", "similarity": "kl", "budget": 0.4} | options
    return gym.make(
        "LFGCL-v0", network=varied().eval(), input_shape=(3, 12, 12), num_images=None,
        images=images(16, size=12), **options,
    )  # fmt: skip


class Spy(Screening):
    """Has seen what it is told."""

    def __init__(self, cheap, rewards, budgets=None):
        super().__init__(make_env())
        budgets = [0.5] * len(cheap) if budgets is None else budgets
        self._executed = list(zip(budgets, cheap, rewards, strict=True))


def test_trust_is_a_rank_correlation_of_what_was_executed():
    rising = list(range(10))
    assert Spy(rising, np.exp(rising)).trust() == pytest.approx(1)
    assert Spy(rising, rising[::-1]).trust() == 0
    assert Spy(rising, [1.0] * 10).trust() == 0
    assert Spy(rising[:7], rising[:7][::-1]).trust() == 1  # too few to tell
    swapped = [1, 0, 3, 2, 5, 4, 7, 6, 9, 8]
    assert 0.8 < Spy(rising, swapped).trust() < 1


def test_a_larger_budget_is_no_merit_of_cheap_scores():
    budgets = np.linspace(0.3, 0.8, 24)
    noise = np.random.default_rng(0).normal(scale=0.01, size=24)
    assert Spy(budgets + noise, budgets - noise, budgets).trust() == 0
    assert Spy(budgets + noise, budgets + 2 * noise, budgets).trust() > 0.8


def test_where_a_step_is_cheap_nothing_is_screened():
    env = make_env(repair="least_squares")
    screening = Screening(env)
    assert not screening.offered
    assert screening.trust() == 0
    assert screening.learn(np.zeros(4), {}, 1.0) is None
    run_search(env, "one_plus_one", EVALUATIONS)
    assert env.unwrapped.problem.screened == 0


@pytest.mark.parametrize("name", SCREENED)
def test_of_several_proposals_the_most_promising_is_executed(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    env = make_env()
    problem = env.unwrapped.problem
    found = run_search(env, find_agent(name), EVALUATIONS)
    assert len(found.records) == EVALUATIONS
    assert problem.screened > 2 * EVALUATIONS
    executed = [r.evaluation.keep for r in found.records]
    known = problem._screen._known
    others = [value for keep, value in known.items() if keep not in set(executed)]
    first = 1 if name != "allocation" else 0
    assert np.mean([known[keep] for keep in executed[first:]]) > np.mean(others)
    again = run_search(make_env(), find_agent(name), EVALUATIONS)
    assert [r.evaluation.keep for r in again.records] == executed


@pytest.mark.parametrize("budget", [0.4, (0.3, 0.8)])
@pytest.mark.parametrize("name", ["lfgcl", "one_plus_one"])
def test_cheap_scores_that_mislead_are_dropped(name, budget):
    env = make_env(budget=budget)
    negated = TransformReward(env, lambda reward: -reward)
    arguments = Arguments(hidden=16, critics=2, updates=2, warm_up=3)
    made = LFGCLAgent(negated, 0, arguments) if name == "lfgcl" else find_agent(name)(negated, 0)
    made.learn(40)
    problem = env.unwrapped.problem
    assert made._screening.trust() == 0
    screened = problem.screened
    made.learn(10)
    assert problem.screened - screened <= 11  # what was executed, not what was proposed
    trusted = make_env(budget=budget)
    again = LFGCLAgent(trusted, 0, arguments) if name == "lfgcl" else find_agent(name)(trusted, 0)
    again.learn(10)
    assert trusted.unwrapped.problem.screened > 11


@pytest.mark.parametrize("name", ["lfgcl", "one_plus_one"])
def test_nothing_is_screened_where_a_wrapper_changes_actions(name):
    env = make_env()
    turned = TransformAction(env, lambda action: 1 - action, env.action_space)
    agent = find_agent(name)(turned, 0)
    agent.learn(6)
    assert not agent._screening.offered
    assert env.unwrapped.problem.screened <= PROPOSALS + 1


@pytest.mark.parametrize("name", ["gaussian_process", "random", "uniform"])
def test_searches_that_do_not_screen_ask_for_no_cheap_scores(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    env = make_env()
    run_search(env, find_agent(name), 4)
    assert env.unwrapped.problem.screened == 0


@pytest.mark.parametrize("name", ["cma_es", "lfgcl", "one_plus_one", "random", "tpe"])
def test_a_search_starts_from_the_allocation_where_it_is_asked_to(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    env = make_env(repair="least_squares", similarity="mse")
    problem = env.unwrapped.problem
    result = run_search(env, name, 8, start="allocation")
    assert result.records[0].evaluation.keep == tuple(allocate(problem).tolist())
    own = run_search(make_env(repair="least_squares", similarity="mse"), name, 8)
    assert own.records[0].evaluation.keep != result.records[0].evaluation.keep
    if name in ("cma_es", "one_plus_one"):  # small steps from there
        first = result.records[0].evaluation.keep
        near, far = (
            np.mean([np.abs(np.subtract(r.evaluation.keep, first)).sum() for r in one.records[1:]])
            for one in (result, own)
        )
        assert near < far


def test_an_unknown_start_is_refused_before_anything_is_scored():
    with pytest.raises(ValueError, match=r"unknown start 'alocation'.*allocation"):
        run_search(make_env(), "random", 3, start="alocation")


def test_logits_of_executed_ratios_lead_to_the_same_strategy():
    problem = make_env(repair="least_squares").unwrapped.problem
    allocated = allocate(problem)
    ratios = prune_ratios(logits_of(problem.prune_ratios(allocated)))
    assert (problem.project(ratios) == allocated).all()


def test_the_critics_of_lfgcl_learn_cheap_scores_beside_returns():
    env = make_env()
    agent = LFGCLAgent(env, 0, Arguments(hidden=16, critics=2, updates=20, warm_up=4))
    agent.learn(24)
    assert len(agent.cheap) == env.unwrapped.problem.screened > len(agent.replay)
    for replay, head in ((agent.replay, 0), (agent.cheap, 1)):
        groups, keep, value = replay.tensors()
        found = agent.critics.heads(groups, groups.describe(keep))[head].mean(0)
        assert np.corrcoef(found.detach(), value)[0, 1] > 0.6


@pytest.mark.parametrize("steps", [0, 2, 7])
def test_an_lfgcl_agent_that_screens_goes_on_from_its_file(tmp_path, steps):
    arguments = Arguments(hidden=16, critics=2, updates=2, warm_up=4)
    envs = [make_env() for _ in range(3)]
    action = np.float32(envs[0].unwrapped.problem.prune_ratios(allocate(envs[0].unwrapped.problem)))
    whole, half = (LFGCLAgent(env, 0, arguments) for env in envs[:2])
    for agent in (whole, half):
        agent.begin_at(action)
    assert (half.predict(envs[0].reset()[0])[0] == action).all()
    whole.learn(10)
    if steps:
        half.learn(steps)
    half.save(tmp_path / "agent")
    again = LFGCLAgent.load(tmp_path / "agent", envs[2])
    assert again._screening.trust() == half._screening.trust()
    assert len(again.cheap) == len(half.cheap)
    again.learn(10 - steps)
    returns = [agent.replay.arrays()[2].tolist() for agent in (whole, again)]
    assert returns[0] == returns[1]
