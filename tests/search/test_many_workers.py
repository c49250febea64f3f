"""A search with several workers is decided by its seed and their number, whatever happens."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import gymnasium as gym
import pytest
import torch
from networks_for_tests import Head, awaken, images
from torch import nn

from lfgcl_env import zoo
from lfgcl_env.engine import Processes, WorkerDied
from lfgcl_env.envs import LFGCLEnv
from lfgcl_env.envs.together import begin_ahead
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.sensitivities import sensitivities
from lfgcl_env.runs.run_folder import RunFolder
from lfgcl_env.search.protocol import AgentError, find_agent
from lfgcl_env.search.run_search import run_search

NEEDS = {"cma_es": "cma", "tpe": "optuna", "ddpg": "stable_baselines3", "ppo": "stable_baselines3"}
BATCHES = ("random", "cross_entropy", "one_plus_one", "cma_es", "tpe", "lfgcl", "ddpg", "ppo")
QUICK = {
    "ddpg": partial(zoo.make, "ddpg", learning_starts=5, gradient_steps=2),
    "ppo": partial(zoo.make, "ppo", n_steps=4, batch_size=4, n_epochs=2),
}
SCREENED = ("tpe", "one_plus_one", "cross_entropy", "lfgcl", "cma_es")
AGENTS = pytest.mark.parametrize("agent", BATCHES)
WORKERS = 3
EVALUATIONS = 17


@pytest.fixture(scope="module")
def workers():
    with Processes(WORKERS) as executor:
        yield executor


def own_network() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    return awaken(nn.Sequential(*layers, Head(8)))


def make_env(engine, env_id="LFGCL-v0", **arguments) -> gym.Env:
    quick = {"network": own_network(), "images": images(8, 8), "num_images": None, "workers": 3}
    quick |= {"input_shape": (3, 8, 8), "reward": "similarity", "criterion": "l1"}
    return gym.make(env_id, engine=engine, **(quick | arguments))


def search(agent, env, **arguments):
    if agent in NEEDS:
        pytest.importorskip(NEEDS[agent])
    arguments = {"evaluations": EVALUATIONS} | arguments
    return run_search(env, QUICK.get(agent, agent), **arguments)


def found(result):
    return [(r.reward, r.budget, r.evaluation) for r in result.records]


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


class Own:
    """An agent of somebody's own, but for how it learns."""

    def __init__(self, env, seed):
        self.env = env

    def predict(self, observation, deterministic=False):
        return self.env.action_space.sample(), None


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


@pytest.mark.slow
def test_killed_workers_change_nothing(workers):
    settings = {"repair": "sequential"}
    whole = search("random", make_env(None, **settings), evaluations=60)
    list(workers.map(time.sleep, [0.1] * WORKERS))
    for seconds, worker in enumerate(list(workers._all), start=1):
        threading.Timer(seconds / 2, worker.process.kill).start()
    result = search("random", make_env(workers, **settings), evaluations=60)
    assert found(result) == found(whole)


class Deadly(nn.Module):
    """Ends every process but the one that made it."""

    def __init__(self) -> None:
        super().__init__()
        self.home = os.getpid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if os.getpid() != self.home:
            os._exit(9)
        return x


def test_a_strategy_that_ends_workers_ends_the_search_with_its_name(workers, tmp_path):
    network = own_network()
    network.insert(4, Deadly())
    with pytest.raises(WorkerDied, match=r"scoring \(.*\) ended 2 worker processes"):
        search("random", make_env(workers, network=network), out=tmp_path / "run")


def test_a_choice_that_ends_workers_ends_the_search_with_its_strategies(workers):
    with pytest.raises(WorkerDied, match=r"scoring \(.*\) or \(.*\) ended 2 worker processes"):
        search("tpe", make_env(workers, reward=deadly, repair="sequential"))


def deadly(network, inputs):
    """A reward that ends workers, but for groups that are pruned nearly alike, as the first are."""
    kept = [one.out_channels for one in network.modules() if isinstance(one, nn.Conv2d)]
    if multiprocessing.parent_process() is not None and max(kept) > min(kept) + 1:
        os._exit(9)
    return 0.5


def test_a_reward_that_fails_in_a_worker_says_so(workers):
    with pytest.raises(AgentError) as caught:
        search("random", make_env(workers, reward=failing))
    assert "reward" in str(caught.value.__cause__)
    assert "no such thing" in str(caught.value.__cause__)


def failing(network, inputs):
    raise KeyError("no such thing")


def test_a_run_cannot_go_on_with_another_number_of_workers(workers, tmp_path):
    env = make_env(workers)
    search("random", env, out=tmp_path / "run", evaluations=4)
    with pytest.raises(ValueError, match="begun with workers=3 and cannot go on with 2"):
        search("random", make_env(workers, workers=2), out=tmp_path / "run", resume=True)


def test_an_interrupted_search_leaves_its_workers_free(workers):
    env = make_env(workers, reward=slow)
    ctrl_c = partial(signal.pthread_kill, threading.main_thread().ident, signal.SIGINT)
    threading.Timer(1.5, ctrl_c).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        search("random", env)  # waits for workers
    assert time.monotonic() - started < 30
    assert workers.submit(abs, -1).result() == 1


def test_a_search_interrupted_while_its_agent_learns_leaves_its_workers_free(workers):
    class Learning(Own):
        def learn(self, total_timesteps, callback):
            self.env.reset(seed=0)
            actions = [self.env.action_space.sample() for _ in range(4)]
            begin_ahead(self.env, actions, len(actions))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search(make_env(workers, reward=slow), Learning, 3)
    assert workers.submit(abs, -1).result(timeout=50) == 1


def slow(network, inputs):
    time.sleep(60)
    return 0.0


DRIVER = """
import os, signal, sys, time
from pathlib import Path

import gymnasium as gym
import torch
from lfgcl_env.engine import Processes
from lfgcl_env.search.run_search import run_search

HERE = Path(__file__).parent

def reward(network, images):
    if (HERE / "stop").exists():
        try:
            (HERE / "first").touch(exist_ok=False)
            time.sleep(60)
        except FileExistsError:
            pass
    with (HERE / "calls").open("a") as file:
        file.write(f"{network[0].out_features}-{network[2].out_features}\\n")
    return float(network[0].out_features)

def main():
    torch.manual_seed(0)
    layers = [torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers, torch.nn.Linear(64, 2))
    env = gym.make("LFGCL-v0", network=network, images=torch.ones(4, 4), reward=reward,
                   workers=4, engine=Processes(2), num_images=4, criterion="l1")
    run_search(env, "random", 4, out=HERE / "run", resume="resume" in sys.argv)

if __name__ == "__main__":
    main()
"""


def kept_in(run):
    scored = run / "scored.jsonl"
    return scored.read_bytes().splitlines() if scored.exists() else []


def test_what_workers_finished_is_kept_when_the_driver_is_killed_in_a_batch(tmp_path):
    script, run = tmp_path / "driver.py", tmp_path / "run"
    script.write_text(DRIVER)
    (tmp_path / "stop").touch()
    driver = subprocess.Popen([sys.executable, str(script)])
    end = time.monotonic() + 150
    while time.monotonic() < end and driver.poll() is None and len(kept_in(run)) < 3:
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    kept, records = RunFolder(run).scored(), RunFolder(run).records()
    assert len(kept) == 3
    assert len(records) <= 1  # whichever worker came first sleeps: with the first or the second
    (tmp_path / "stop").unlink()
    (tmp_path / "calls").unlink()
    subprocess.run([sys.executable, str(script), "resume"], check=True, timeout=150)
    assert len(RunFolder(run).records()) == 4
    again = (tmp_path / "calls").read_text().split()
    # The best of them and what was recorded are measured anew, to see that they are of this run.
    best = max(kept, key=lambda one: one.score)
    anew = {best.evaluation.keep, *(record.evaluation.keep for record in records)}
    others = {one.evaluation.keep for one in kept} - anew
    assert not {"-".join(map(str, keep)) for keep in others} & set(again)


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
