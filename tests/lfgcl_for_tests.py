"""A small LFGCL agent on a network with random weights, for tests."""

import gymnasium as gym
from lfgcl_env.agents._lfgcl_arguments import Arguments
from lfgcl_env.agents.lfgcl import LFGCLAgent

import lfgcl_env

QUICK = Arguments(hidden=16, critics=2, updates=2, actor_interval=1, warm_up=3, candidates=8)


def env_of(network="resnet20", **changes):
    assert lfgcl_env
    arguments = {"weights": "random", "images": "random", "num_images": 4, **changes}
    return gym.make("LFGCL-v0", network=network, **arguments)


def trained(env, evaluations=8, seed=0, arguments=QUICK):
    agent = LFGCLAgent(env, seed, arguments)
    agent.learn(4 * evaluations, lambda *_: len(agent.replay) < evaluations)
    return agent
