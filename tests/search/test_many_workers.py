"""A search with several workers is decided by its seed and their number, whatever happens."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import gymnasium as gym
import pytest
from networks_for_tests import images
from searches_for_tests import EVALUATIONS, NEEDS, WORKERS, Own, found, kept_in, make_env, search

from lfgcl_env.envs import LFGCLEnv
from lfgcl_env.envs.together import begin_ahead
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.sensitivities import sensitivities
from lfgcl_env.search.protocol import find_agent
from lfgcl_env.search.run_search import run_search

BATCHES = ("random", "cross_entropy", "one_plus_one", "cma_es", "tpe", "lfgcl", "ddpg", "ppo")
SCREENED = ("tpe", "one_plus_one", "cross_entropy", "lfgcl", "cma_es")
AGENTS = pytest.mark.parametrize("agent", BATCHES)


@pytest.fixture
def scored_here(monkeypatch):
    """The strategies that this process scores."""
    here = []
    score = PruningProblem._score

    def noted(problem, keep):
        here.append(tuple(keep.tolist()))
        return score(problem, keep)

    monkeypatch.setattr(PruningProblem, "_score", noted)
    return here


@AGENTS
def test_seed_and_number_of_workers_decide_what_is_found(agent, workers, scored_here):
    first = search(agent, make_env(workers))
    assert len(first.records) == EVALUATIONS
    # The start alone has no company, and the second strategy of a search that needs its reward.
    assert len(scored_here) <= 2
    with ThreadPoolExecutor(2) as threads:
        assert found(search(agent, make_env(threads))) == found(first)
    problem = make_env(None, workers=1).unwrapped.problem
    assert [problem.evaluate(r.evaluation.keep) for r in first.records] == [
        record.evaluation for record in first.records
    ]


def brightness(network, inputs):
    return float(network(inputs).mean())


@pytest.mark.parametrize("reward", ["similarity", brightness])
@pytest.mark.parametrize("agent", SCREENED)
def test_what_workers_screen_and_score_at_once_is_what_this_process_would(
    agent, reward, workers, scored_here, monkeypatch, tmp_path
):
    arguments = {"repair": "sequential", "reward": reward}
    blocked, screen = [], PruningProblem.screen

    def noted(problem, strategies, engine=None):
        keeps = [tuple(map(int, one)) for one in strategies]
        blocked.extend(set(keeps).difference(problem.screened_before(keeps)) if engine else ())
        return screen(problem, strategies, engine)

    monkeypatch.setattr(PruningProblem, "screen", noted)
    env = make_env(workers, **arguments)
    first = search(agent, env, out=tmp_path / "run", evaluations=11)
    assert len(scored_here) <= 2
    if agent != "cma_es":  # which screens a generation
        assert not blocked
        assert first.screened > 11 + 10
    with ThreadPoolExecutor(2) as threads:
        again = search(agent, make_env(threads, **arguments), evaluations=11)
    assert (found(again), again.screened) == (found(first), first.screened)
    whole = search(agent, make_env(workers, **arguments))
    env = make_env(workers, **arguments)
    assert found(search(agent, env, out=tmp_path / "run", resume=True)) == found(whole)


class Patient(ThreadPoolExecutor):
    """Finishes its first tasks once it has so many that every worker has one.

    Args:
        alone: tasks before these that it does at once.
    """

    def __init__(self, alone):
        super().__init__(WORKERS)
        self.given, self.alone, self.enough = 0, alone, threading.Event()

    def submit(self, fn, /, *args, **kwargs):
        self.given += 1
        if self.given >= self.alone + WORKERS:
            self.enough.set()
        waits = self.given > self.alone
        return super().submit(self._done, waits, fn, args, kwargs)

    def _done(self, waits, fn, args, kwargs):
        assert not waits or self.enough.wait(60)
        return fn(*args, **kwargs)


@pytest.mark.parametrize(
    ("agent", "alone"), [("tpe", 0), ("cross_entropy", 0), ("one_plus_one", 1), ("lfgcl", 1)]
)
def test_every_worker_has_a_strategy_before_the_first_is_screened(agent, alone):
    with Patient(alone) as executor:
        search(agent, make_env(executor, repair="sequential"), evaluations=6)


@pytest.fixture
def ahead(monkeypatch):
    """How many strategies were begun before each step and not stepped."""
    found, begun = [], []
    begin, step = LFGCLEnv.begin, LFGCLEnv.step

    def noted_begin(env, strategies):
        begun.extend(tuple(one) for one in strategies)
        begin(env, strategies)

    def noted_step(env, action):
        found.append(len(begun) - len(found))
        return step(env, action)

    monkeypatch.setattr(LFGCLEnv, "begin", noted_begin)
    monkeypatch.setattr(LFGCLEnv, "step", noted_step)
    return found, begun


@pytest.mark.parametrize("agent", ["random", "one_plus_one", "tpe", "lfgcl"])
def test_workers_go_on_while_the_agent_learns(agent, workers, ahead):
    counts, begun = ahead
    result = search(agent, make_env(workers))
    alone = agent in ("one_plus_one", "lfgcl")  # the first
    assert set(counts[alone : 1 + EVALUATIONS - WORKERS]) == {WORKERS}
    assert set(begun) == {record.evaluation.keep for record in result.records}


def test_workers_measure_the_sensitivities_of_the_start_and_of_the_shortlist(workers, monkeypatch):
    engines, measure = [], sensitivities

    def noted(problem, *arguments, **named):
        engines.append(named["engine"] if named else arguments[1])
        return measure(problem, *arguments, **named)

    for module in ("run_search", "shortlist"):
        monkeypatch.setattr(sys.modules[f"lfgcl_env.search.{module}"], "sensitivities", noted)
    arguments = {"start": "allocation", "shortlist": 2, "evaluations": 4}
    arguments["repair_images"] = images(8, 8)
    result = search("random", make_env(workers), **arguments)
    assert engines == [workers, workers]
    assert found(search("random", make_env(None, workers=1), **arguments))[0] == found(result)[0]


@pytest.mark.parametrize("agent", ["one_plus_one", "random", "lfgcl", "cma_es"])
def test_a_shorter_search_is_the_beginning_of_a_longer_one(agent, workers, tmp_path):
    whole = search(agent, make_env(workers), evaluations=24)
    search(agent, make_env(workers), evaluations=19, out=tmp_path / "run")
    more = search(agent, make_env(workers), evaluations=24, out=tmp_path / "run", resume=True)
    assert found(more) == found(whole)


def test_nothing_is_begun_that_no_step_of_a_layerwise_search_leads_to(workers):
    env = make_env(workers, "AMC-v0")
    begun, begin = [], env.unwrapped.begin
    env.unwrapped.begin = lambda strategies: begun.extend(strategies) or begin(strategies)
    result = search("random", env, evaluations=5)
    assert {tuple(one) for one in begun} <= {r.evaluation.keep for r in result.records}


def test_what_workers_finish_while_the_agent_learns_is_kept_at_once(workers, tmp_path):
    class Waiting(Own):
        def learn(self, total_timesteps, callback):
            self.env.reset(seed=0)
            actions = [self.env.action_space.sample() for _ in range(3)]
            begin_ahead(self.env, actions, len(actions))
            end = time.monotonic() + 60
            while len(kept_in(tmp_path / "run")) < 3 and time.monotonic() < end:
                time.sleep(0.02)
            assert len(kept_in(tmp_path / "run")) == 3
            for action in actions:
                self.env.reset()
                self.env.step(action)

    result = run_search(make_env(workers), Waiting, 3, out=tmp_path / "run", shortlist=0)
    assert len(result.records) == 3


def test_a_generation_ends_before_the_next_begins(workers, ahead):
    pytest.importorskip("cma")
    search("cma_es", make_env(workers))
    first = ahead[0][1:9]  # of 4 + 3 ln 5 strategies
    assert first == [3] * 6 + [2, 1]


def test_a_search_leaves_nothing_to_the_workers(workers):
    class Hasty(Own):
        left = ()

        def learn(self, total_timesteps, callback):
            self.env.reset(seed=0)
            actions = [self.env.action_space.sample() for _ in range(8)]
            begin_ahead(self.env, actions, len(actions))
            self.env.step(actions[0])
            self.left = (self.env.unwrapped._workers._flight,)

    env = make_env(workers)
    result = run_search(env, Hasty, 3, shortlist=0)
    assert result.agent.left[0] is not None
    assert env.unwrapped._workers._flight is None
    assert workers.submit(abs, -1).result() == 1


@AGENTS
def test_a_search_on_a_range_of_budgets_is_decided_alike(agent, workers):
    budgets = {"budget": (0.4, 0.8), "points": 2}
    ranges = budgets.pop("points")
    results = [
        search(agent, make_env(workers, **budgets), points=ranges, evaluations=9) for _ in range(2)
    ]
    assert found(results[0]) == found(results[1])
    assert len({record.budget for record in results[0].records}) > 1


@AGENTS
def test_a_search_that_stopped_goes_on_as_if_it_had_not(agent, workers, tmp_path):
    class Stopping(gym.Wrapper):
        steps = 0

        def step(self, action):
            Stopping.steps += 1
            if Stopping.steps == 12:
                raise KeyboardInterrupt
            return self.env.step(action)

    whole = search(agent, make_env(workers))
    with pytest.raises(KeyboardInterrupt):
        search(agent, Stopping(make_env(workers)), out=tmp_path / "run")
    result = search(agent, make_env(workers), out=tmp_path / "run", resume=True)
    assert found(result) == found(whole)


@AGENTS
def test_longer_episodes_are_searched_too(agent, workers):
    result = search(agent, make_env(workers, horizon=2), evaluations=8)
    assert len(result.records) == 8


def test_the_layerwise_environment_is_searched_by_several_at_once(workers, scored_here):
    pytest.importorskip("stable_baselines3")
    results = [search("ddpg", make_env(workers, "AMC-v0"), evaluations=5) for _ in range(2)]
    assert found(results[0]) == found(results[1])
    assert not scored_here


def test_a_wrapper_that_changes_rewards_changes_what_is_kept(workers):
    def best(sign):
        env = gym.wrappers.TransformReward(make_env(workers), lambda reward: sign * reward)
        return search("ddpg", env, agent_seed=3)

    pytest.importorskip("stable_baselines3")
    up, down = best(1), best(-1)
    assert up.best.similarity > down.best.similarity
    assert all(r.reward == -r.evaluation.similarity for r in down.records)


def test_a_run_cannot_go_on_with_another_number_of_workers(workers, tmp_path):
    env = make_env(workers)
    search("random", env, out=tmp_path / "run", evaluations=4)
    with pytest.raises(ValueError, match="begun with workers=3 and cannot go on with 2"):
        search("random", make_env(workers, workers=2), out=tmp_path / "run", resume=True)


@pytest.mark.parametrize("agent", ["cma_es", "cross_entropy", "one_plus_one", "tpe"])
def test_an_agent_that_was_stopped_in_a_batch_learns_on(agent):
    if agent in NEEDS:
        pytest.importorskip(NEEDS[agent])
    with ThreadPoolExecutor(2) as threads:
        made = find_agent(agent)(make_env(threads), 0)
        steps = iter(range(1000))
        for _ in range(4):
            made.learn(30, lambda *_: next(steps) % 5 != 4)
        assert next(steps) == 20
