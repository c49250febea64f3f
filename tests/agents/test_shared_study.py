"""Searches of several processes that know of each other's trials by a file."""

import subprocess
import sys
from functools import partial

import gymnasium as gym
import pytest
from networks_for_tests import awaken, images, plain

from lfgcl_env.search.run_search import run_search

optuna = pytest.importorskip("optuna")

from lfgcl_env.agents import gaussian_process, tpe  # noqa: E402 - needs optuna


def make_env(seed=0, **arguments) -> gym.Env:
    quick = {"num_images": None, "reward": "similarity", "criterion": "l1"}
    return gym.make(
        "LFGCL-v0", network=awaken(plain(), seed), images=images(4), **(quick | arguments)
    )


def keeps(result) -> list[tuple[int, ...]]:
    return [record.evaluation.keep for record in result.records]


def trials_in(journal) -> dict[str, list]:
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(journal))
    )
    return {
        study.study_name: optuna.load_study(study_name=study.study_name, storage=storage).trials
        for study in storage.get_all_studies()
    }


@pytest.mark.parametrize("agent", [tpe, gaussian_process])
def test_a_search_goes_by_what_another_one_found(agent, tmp_path):
    journal = tmp_path / "study.journal"
    shared = partial(agent.make, journal=journal)
    first = run_search(make_env(), shared, 12, agent_seed=1, shortlist=0)
    alone = run_search(make_env(), agent.make, 12, agent_seed=1, shortlist=0)
    assert keeps(first) == keeps(alone)
    second = run_search(make_env(), shared, 4, agent_seed=2, shortlist=0)
    # Its model knows 12 strategies; without them it would draw its first ones by chance.
    assert keeps(second) != keeps(run_search(make_env(), agent.make, 4, agent_seed=2, shortlist=0))
    (trials,) = trials_in(journal).values()
    values = [trial.value for trial in trials if trial.value is not None]
    found = [record.reward for record in (*first.records, *second.records)]
    assert list(dict.fromkeys(values)) == list(dict.fromkeys(found))  # some were tried again
    assert [trial.params for trial in trials].count(trials[0].params) == 1  # the start


def test_other_problems_have_other_studies_in_the_same_file(tmp_path):
    journal = tmp_path / "study.journal"
    for env in (make_env(), make_env(1), make_env(budget=0.6), make_env(reward=size)):
        run_search(env, partial(tpe.make, journal=journal), 2, shortlist=0)
    assert len(trials_in(journal)) == 4


def size(network, inputs):
    return float(sum(p.numel() for p in network.parameters()))


MACHINE = """
import sys
from functools import partial

import gymnasium as gym
import torch
from lfgcl_env.agents import tpe
from lfgcl_env.search.run_search import run_search

torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 32),
                              torch.nn.ReLU(), torch.nn.Linear(32, 4))
env = gym.make("LFGCL-v0", network=network, images=torch.randn(16, 8), num_images=None)
shared = partial(tpe.make, journal=sys.argv[1])
run_search(env, shared, 12, agent_seed=int(sys.argv[2]), shortlist=0)
"""


@pytest.mark.slow
def test_two_processes_write_to_one_study_at_a_time(tmp_path):
    journal = tmp_path / "study.journal"
    commands = [[sys.executable, "-c", MACHINE, str(journal), seed] for seed in "12"]
    machines = [subprocess.Popen(command) for command in commands]
    assert [machine.wait(150) for machine in machines] == [0, 0]
    (trials,) = trials_in(journal).values()
    assert sum(trial.value is not None for trial in trials) >= 24


def test_what_cannot_be_shared_is_refused(tmp_path):
    journal = tmp_path / "study.journal"
    with pytest.raises(ValueError, match="tells rewards apart by their names"):
        tpe.make(make_env(reward=lambda network, inputs: 0.0), 0, journal=journal)
    with pytest.raises(ValueError, match="a journal holds rewards on one budget"):
        tpe.make(make_env(budget=(0.4, 0.8)), 0, journal=journal)
    journal.write_text("not a journal\n{}\n")
    agent = tpe.make(make_env(), 0, journal=journal)
    with pytest.raises(ValueError, match="is not a journal of optuna"):
        agent.learn(3)
    agent = tpe.make(make_env(), 0, journal=tmp_path / "missing" / "study.journal")
    with pytest.raises(OSError, match="missing"):
        agent.learn(3)
