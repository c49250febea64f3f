"""Small searches with several workers, for tests."""

from functools import partial

import gymnasium as gym
import pytest
from networks_for_tests import Head, awaken, images
from torch import nn

from lfgcl_env import zoo
from lfgcl_env.search.run_search import run_search

NEEDS = {"cma_es": "cma", "tpe": "optuna", "ddpg": "stable_baselines3", "ppo": "stable_baselines3"}
QUICK = {
    "ddpg": partial(zoo.make, "ddpg", learning_starts=5, gradient_steps=2),
    "ppo": partial(zoo.make, "ppo", n_steps=4, batch_size=4, n_epochs=2),
}
WORKERS = 3
EVALUATIONS = 17


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


class Own:
    """An agent of somebody's own, but for how it learns."""

    def __init__(self, env, seed):
        self.env = env

    def predict(self, observation, deterministic=False):
        return self.env.action_space.sample(), None


def kept_in(run):
    scored = run / "scored.jsonl"
    return scored.read_bytes().splitlines() if scored.exists() else []
