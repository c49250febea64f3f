"""Workers, rewards and searches that end before their time lose nothing."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest
import torch
from searches_for_tests import WORKERS, Own, found, kept_in, make_env, own_network, search
from torch import nn

from lfgcl_env.engine import WorkerDied
from lfgcl_env.envs.together import begin_ahead
from lfgcl_env.runs.run_folder import RunFolder
from lfgcl_env.search.protocol import AgentError
from lfgcl_env.search.run_search import run_search


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


def test_an_interrupted_search_leaves_its_workers_free(workers, tmp_path):
    env = make_env(workers, reward=partial(slow, tmp_path / "scored"))
    ctrl_c = partial(signal.pthread_kill, threading.main_thread().ident, signal.SIGINT)
    once_begun = threading.Thread(target=wait_for, args=(tmp_path / "begun", ctrl_c))
    once_begun.start()
    with pytest.raises(KeyboardInterrupt):
        search("random", env)  # waits for workers
    assert workers.submit(abs, -1).result() == 1
    assert (tmp_path / "begun").exists()
    assert not (tmp_path / "scored").exists()


def test_a_search_interrupted_while_its_agent_learns_leaves_its_workers_free(workers, tmp_path):
    class Learning(Own):
        def learn(self, total_timesteps, callback):
            self.env.reset(seed=0)
            actions = [self.env.action_space.sample() for _ in range(4)]
            begin_ahead(self.env, actions, len(actions))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search(make_env(workers, reward=partial(slow, tmp_path / "scored")), Learning, 3)
    assert workers.submit(abs, -1).result() == 1
    assert not (tmp_path / "scored").exists()


def wait_for(path, then):
    end = time.monotonic() + 100
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    then()


def slow(end, network, inputs):
    end.with_name("begun").touch()
    time.sleep(60)
    end.touch()
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
