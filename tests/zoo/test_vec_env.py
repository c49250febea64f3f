"""Stable-Baselines3's vector environment whose strategies are scored together."""

import functools

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from networks_for_tests import awaken, plain
from torch import nn

from lfgcl_env import zoo
from lfgcl_env.engine import Processes
from lfgcl_env.pruning import PruningProblem

sb3 = pytest.importorskip("stable_baselines3")
from stable_baselines3.common.env_util import make_vec_env  # noqa: E402
from stable_baselines3.common.evaluation import evaluate_policy  # noqa: E402
from stable_baselines3.common.vec_env import (  # noqa: E402
    DummyVecEnv,
    VecCheckNan,
    VecMonitor,
    VecNormalize,
)

COUNT = 3


def own_network() -> nn.Module:
    return awaken(plain())


@pytest.fixture(scope="module")
def workers():
    with Processes(2) as executor:
        yield executor


def single(env_id: str = "LFGCL-v0", **arguments) -> gym.Env:
    quick = {"images": "random", "num_images": 8, "input_shape": (3, 8, 8)}
    quick |= {"network": f"{__name__}:own_network", "reward": "similarity"}
    return gym.make(env_id, **(quick | arguments))


@pytest.mark.parametrize("env_id", ["LFGCL-v0", "AMC-v0"])
def test_it_does_what_a_dummy_one_does(env_id, workers, monkeypatch):
    arguments = {"budget": (0.4, 0.9)}
    alone = DummyVecEnv([lambda: single(env_id, **arguments)] * COUNT)
    together = zoo.TogetherVecEnv(single(env_id, engine=workers, **arguments), COUNT)
    alone.action_space.seed(0)
    shape = (COUNT, *alone.action_space.shape)
    actions = np.random.default_rng(0).random((5, *shape)).astype(np.float32)
    histories = []
    for envs in (alone, together):
        envs.seed(3)
        histories.append([envs.reset(), *map(envs.step, actions)])
        monkeypatch.setattr(PruningProblem, "_score", None)  # nothing is scored here any more
    assert data_equivalence(*histories, exact=True)
    assert any("terminal_observation" in infos[0] for *_, infos in histories[1][1:])


def test_it_has_as_many_environments_as_workers():
    assert zoo.TogetherVecEnv(single(workers=2)).num_envs == 2
    with pytest.raises(ValueError, match="num_envs must be"):
        zoo.TogetherVecEnv(single(), 0)


def test_it_is_what_make_vec_env_makes_where_it_is_asked_to(workers, monkeypatch):
    make = functools.partial(single, engine=workers)
    envs = make_vec_env(make, n_envs=COUNT, vec_env_cls=zoo.TogetherVecEnv, seed=3)
    alone = make_vec_env(single, n_envs=COUNT, seed=3)
    assert (envs.reset() == alone.reset()).all()
    assert len({id(env.unwrapped.problem) for env in envs.envs}) == 1
    actions = np.random.default_rng(0).random((COUNT, *envs.action_space.shape))
    expected = alone.step(actions)[1]
    monkeypatch.setattr(PruningProblem, "_score", None)
    assert (envs.step(actions)[1] == expected).all()


@pytest.mark.parametrize("given", [gym.make("CartPole-v1"), [lambda: gym.make("CartPole-v1")], 3])
def test_environments_of_other_packages_are_refused(given):
    with pytest.raises(ValueError, match=r"environments of lfgcl_env.*DummyVecEnv"):
        zoo.TogetherVecEnv(given)
    with pytest.raises(ValueError, match="number of functions must be"):
        zoo.TogetherVecEnv([])


@pytest.mark.parametrize("kind", ["DDPG", "PPO"])
def test_agents_learn_alike_with_and_without_workers(kind, workers):
    settings = {"DDPG": {"learning_starts": 6, "gradient_steps": 2}, "PPO": {"n_steps": 4}}
    policies = []
    for engine in (workers, None):
        envs = zoo.TogetherVecEnv(single(engine=engine), COUNT)
        more = {"batch_size": 6, "seed": 1, "device": "cpu", **settings[kind]}
        agent = getattr(sb3, kind)("MlpPolicy", envs, **more)
        before = {n: value.clone() for n, value in agent.policy.state_dict().items()}
        agent.learn(24)
        after = agent.policy.state_dict()
        assert agent.num_timesteps == 24
        assert any((before[name] != after[name]).any() for name in after)
        policies.append(after)
    assert all((policies[0][name] == policies[1][name]).all() for name in policies[0])


def test_stable_baselines3s_own_wrappers_and_evaluation_take_it():
    envs = VecCheckNan(zoo.TogetherVecEnv(single(), COUNT), raise_exception=True)
    envs = VecNormalize(VecMonitor(envs))
    agent = sb3.DDPG("MlpPolicy", envs, learning_starts=6, device="cpu").learn(12)
    mean, _ = evaluate_policy(agent, envs, n_eval_episodes=4, warn=False)
    assert np.isfinite(mean)
    assert envs.get_attr("workers") == [1] * COUNT
    envs.close()


def test_returns_of_episodes_are_logged_with_several_workers(workers):
    agent = zoo.make("ddpg", single(engine=workers, workers=2), 0).learn(4)
    assert len(agent.ep_info_buffer) == 4
