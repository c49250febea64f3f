"""Searches go by cheap scores while these rank what is rewarded, and not a step further."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TransformReward
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
    """Promises what it is told to."""

    def __init__(self, cheap, rewards, budget=0.5):
        super().__init__(make_env())
        self._executed[budget] = list(zip(cheap, rewards, strict=True))


def test_trust_is_a_rank_correlation_of_what_was_executed():
    rising = list(range(10))
    assert Spy(rising, np.exp(rising)).trust(0.5) == pytest.approx(1)
    assert Spy(rising, rising[::-1]).trust(0.5) == 0
    assert Spy(rising, [1.0] * 10).trust(0.5) == 0
    assert Spy(rising[:7], rising[:7][::-1]).trust(0.5) == 1  # too few to tell
    assert Spy(rising, rising[::-1]).trust(0.7) == 1  # nothing is known of this budget
    swapped = [1, 0, 3, 2, 5, 4, 7, 6, 9, 8]
    assert 0.8 < Spy(rising, swapped).trust(0.5) < 1


def test_where_a_step_is_cheap_nothing_is_screened():
    env = make_env(repair="least_squares")
    screening = Screening(env)
    assert not screening.offered
    assert screening.trust(0.4) == 0
    screening.learn(np.zeros(4), 0.4, 1.0)
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


def test_cheap_scores_that_mislead_are_dropped():
    env = make_env()
    agent = find_agent("one_plus_one")(TransformReward(env, lambda reward: -reward), 0)
    agent.learn(60)
    problem = env.unwrapped.problem
    screened = problem.screened
    assert agent._screening.trust(0.4) == 0
    agent.learn(10)
    assert problem.screened - screened <= 11  # what was executed, not what was proposed
    assert PROPOSALS > 2


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


def test_an_lfgcl_agent_that_screens_goes_on_from_its_file(tmp_path):
    arguments = Arguments(hidden=16, critics=2, updates=2, warm_up=3)
    whole = LFGCLAgent(make_env(), 0, arguments).learn(12)
    half = LFGCLAgent(make_env(), 0, arguments).learn(7)
    half.save(tmp_path / "agent")
    again = LFGCLAgent.load(tmp_path / "agent", make_env())
    assert again._screening.trust(0.4) == half._screening.trust(0.4)
    assert len(again.cheap) == len(half.cheap)
    again.learn(5)
    returns = [agent.replay.arrays()[2].tolist() for agent in (whole, again)]
    assert returns[0] == returns[1]
