"""A run starts from the saved agent of another run, on this or another network."""

import json
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from networks_for_tests import Concatenating, awaken, images, plain

from lfgcl_env import zoo
from lfgcl_env.runs.run_folder import RunFolder
from lfgcl_env.search.budget_sweep import answer
from lfgcl_env.search.run_search import run_search

INPUTS = images(8)
NETWORK, OTHER = awaken(plain()), awaken(Concatenating())
DDPG = partial(zoo.make, "ddpg", learning_starts=2, gradient_steps=5)


def make_env(network=NETWORK, budget=0.5):
    return gym.make("LFGCL-v0", network=network, images=INPUTS, num_images=None, budget=budget)


class Counted(gym.Wrapper):
    """Counts its steps."""

    steps = 0

    def step(self, action):
        self.steps += 1
        return self.env.step(action)


class Tilted:
    """Has one number to answer every network with: how much more the last group keeps."""

    def __init__(self, env, seed):
        self.env, self.tilt, self.learnt = env, 0.0, False

    def learn(self, total_timesteps, callback):
        self.learnt = True
        for tilt in np.linspace(0.1, 0.4, 7):
            self.tilt = float(tilt)
            observation, _ = self.env.reset(seed=0)
            self.env.step(self.predict(observation)[0])
            if not callback(locals(), globals()):
                return

    def predict(self, observation, deterministic=False):
        half = np.linspace(1, -1, len(observation), dtype=np.float32)
        return 0.5 + np.float32(self.tilt) * half, None

    def save(self, path):
        with open(path, "w") as file:
            json.dump(self.tilt, file)

    def set_parameters(self, path):
        with open(path) as file:
            self.tilt = json.load(file)


class Closed(Tilted):
    """Cannot take anything over."""

    set_parameters = None


@pytest.fixture
def run(tmp_path):
    """A finished run of the tilted agent."""
    run_search(make_env(), Tilted, 3, out=tmp_path / "from")
    return tmp_path / "from"


def test_the_first_strategy_is_what_was_learnt_and_may_be_the_only_one(run, tmp_path):
    env = make_env(OTHER, 0.6)
    result = run_search(env, Tilted, 1, init_from=run, out=tmp_path / "run")
    agent = Tilted(env, 0)
    agent.tilt = json.loads((run / "agent.zip").read_text())
    assert [r.evaluation.keep for r in result.records] == [answer(env, agent, 0.6)]
    assert not result.agent.learnt
    assert agent.tilt > 0.1
    longer = run_search(make_env(OTHER, 0.6), Tilted, 3, init_from=run)
    assert longer.records[0].evaluation == result.records[0].evaluation
    assert longer.agent.learnt
    assert len(longer.records) == 3


def test_over_a_range_of_budgets_what_was_learnt_is_asked_for_all(run):
    env = make_env(OTHER, (0.4, 0.8))
    result = run_search(env, Tilted, 1, init_from=run, points=3)
    assert result.records[0].budget == pytest.approx(0.6)
    assert not result.agent.learnt
    answers = [answer(env, result.agent, budget) for budget in (0.4, 0.6, 0.8)]
    assert [point.predicted.keep for point in result.sweep] == answers


@pytest.mark.slow
def test_stable_baselines3_begins_with_its_networks(tmp_path):
    first = run_search(make_env(), DDPG, 6, out=tmp_path / "from")
    env = make_env(budget=0.7)
    zero_shot = run_search(env, DDPG, 1, agent_seed=5, init_from=tmp_path / "from")
    assert zero_shot.records[0].evaluation.keep == answer(env, _placed(first.agent, env), 0.7)
    fresh = DDPG(env, 5).get_parameters()["policy"]
    learnt = zero_shot.agent.get_parameters()["policy"]
    assert not all(torch.equal(fresh[name], learnt[name]) for name in fresh)


def _placed(agent, env):
    other = DDPG(env, 0)
    other.set_parameters(agent.get_parameters())
    return other


def test_parameters_that_do_not_fit_say_why(tmp_path):
    run_search(make_env(), DDPG, 4, out=tmp_path / "from")
    env = Counted(make_env(OTHER))
    with pytest.raises(ValueError, match="trained on 2 groups of channels, here are 3"):
        run_search(env, DDPG, 4, init_from=tmp_path / "from", out=tmp_path / "run")
    assert env.steps == 0
    assert not (tmp_path / "run").exists()
    (tmp_path / "from" / "agent.zip").write_text("no zip")
    with pytest.raises(ValueError, match="does not fit here"):
        run_search(make_env(), DDPG, 4, init_from=tmp_path / "from")


def test_what_cannot_be_begun_from_is_refused_before_anything_is_scored(run, tmp_path):
    env = Counted(make_env())
    with pytest.raises(FileNotFoundError, match="no run to start from"):
        run_search(env, Tilted, 2, init_from=tmp_path)
    with pytest.raises(ValueError, match=r"made by the agent '.*Tilted', from which 'random'"):
        run_search(env, "random", 2, init_from=run)
    run_search(make_env(), Closed, 2, out=tmp_path / "closed")
    with pytest.raises(
        ValueError, match="Closed cannot start from a saved agent: it has no set_param"
    ):
        run_search(env, Closed, 2, init_from=tmp_path / "closed", out=tmp_path / "run")
    (run / "agent.zip").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no agent\.zip"):
        run_search(env, Tilted, 2, init_from=run)
    assert env.steps == 0
    assert not (tmp_path / "run").exists()


def test_resuming_begins_with_the_same_and_refuses_another(run, tmp_path):
    out = tmp_path / "run"
    options = {"out": out, "init_from": run}
    run_search(make_env(OTHER), Tilted, 2, **options)
    recorded = RunFolder(out).described()["arguments"]
    assert recorded["init_from"] == str(run)
    assert len(recorded["init_from_sha256"]) == 64
    resumed = run_search(make_env(OTHER), Tilted, 3, resume=True, **options)
    whole = run_search(make_env(OTHER), Tilted, 3, init_from=run)
    assert [r.evaluation for r in resumed.records] == [r.evaluation for r in whole.records]

    moved = run.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match="no run to start from"):
        run_search(make_env(OTHER), Tilted, 3, resume=True, **options)
    run_search(make_env(OTHER), Tilted, 3, resume=True, out=out, init_from=moved)
    with pytest.raises(ValueError, match=r"was begun with init_from=.* cannot go on with None"):
        run_search(make_env(OTHER), Tilted, 3, resume=True, out=out)
    (moved / "agent.zip").write_text("0.25")
    with pytest.raises(ValueError, match="whose agent has changed since"):
        run_search(make_env(OTHER), Tilted, 3, resume=True, out=out, init_from=moved)
    assert len(RunFolder(out).records()) == 3


def test_the_lfgcl_agent_carries_over_to_a_network_with_more_groups(tmp_path):
    run_search(make_env(), "lfgcl", 12, out=tmp_path / "from")
    env = make_env(OTHER)
    zero_shot = run_search(env, "lfgcl", 1, init_from=tmp_path / "from", out=tmp_path / "run")
    assert len(zero_shot.records) == 1
    assert len(zero_shot.best.keep) == 3
    recorded = RunFolder(tmp_path / "run").described()["arguments"]
    assert recorded["init_from"] == str(tmp_path / "from")
