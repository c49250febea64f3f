"""Episodes and agents where whole groups may go: nothing is ever infinite."""

from functools import cache
from importlib import import_module

import gymnasium as gym
import numpy as np
import pytest

import lfgcl_env

UNLABELLED = {"weights": "random", "images": "random", "num_images": 4, "criterion": "l1"}
BUDGET = 0.03
"""Less than one channel in every group would cost."""


@cache
def made(name: str, **arguments) -> gym.Env:
    return gym.make(name, min_channels=0, budget=BUDGET, **UNLABELLED, **arguments)


@pytest.mark.parametrize("asked", [0.0, 0.5, 1.0])
def test_a_step_of_any_size_is_executed_on_the_budget(asked):
    env = made("LFGCL-ResNet20-v0")
    first, _ = env.reset(seed=0)
    observation, reward, _, _, info = env.step(np.full(9, asked, np.float32))
    assert (info["keep"] == 0).any()
    assert info["is_success"]
    assert np.isfinite([*first.ravel(), *observation.ravel(), reward]).all()
    assert env.observation_space.contains(observation)


def test_nothing_but_the_stem_is_left_at_the_lowest_budget():
    env = made("LFGCL-ResNet20-v0")
    lowest = env.unwrapped.problem.lowest_budget
    env.reset(options={"budget": lowest})
    observation, reward, _, _, info = env.step(np.ones(9, np.float32))
    assert info["keep"].tolist() == [0] * 9
    assert np.isfinite([*observation.ravel(), reward]).all()


def test_layer_by_layer_all_that_is_asked_for_goes():
    env = made("AMC-ResNet20-v0", max_prune_ratio=1.0, reward="similarity")
    observation, info = env.reset(seed=0)
    for _ in range(9):
        observation, reward, _, _, info = env.step(np.ones(1, np.float32))
        assert np.isfinite([*observation, reward]).all()
    assert info["keep"].tolist() == [0] * 9
    assert info["is_success"]


def agent_of(name: str, env: gym.Env):
    if name == "cma_es":
        pytest.importorskip("cma")
    return import_module(f"lfgcl_env.agents.{name}").make(env, 0)


@pytest.mark.parametrize("name", ["lfgcl", "random", "cma_es", "allocation"])
def test_agents_learn_where_groups_go_whole(name):
    env = made("LFGCL-ResNet20-v0")
    agent = agent_of(name, env)
    steps = []

    def record(local, _):
        steps.append(local["reward"])
        return True

    agent.learn(14, callback=record)
    observation, _ = env.reset(options={"budget": BUDGET})
    action, _ = agent.predict(observation)
    assert len(steps) == 14
    assert np.isfinite([*steps, *action]).all()
    assert (env.step(action)[4]["keep"] == 0).any()


def test_the_allocation_is_the_first_strategy_of_its_agent():
    env = made("LFGCL-ResNet20-v0")
    tried = []

    def record(local, _):
        tried.append(local["info"]["keep"].tolist())
        return False

    agent_of("allocation", env).learn(1, callback=record)
    assert 0 in tried[0]
    assert tried[0] == lfgcl_env.pruning.allocate(env.unwrapped.problem, BUDGET).tolist()
