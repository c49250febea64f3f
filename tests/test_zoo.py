"""Settings for Stable-Baselines3 that rl_zoo3 reads too, and agents made of them."""

import gymnasium as gym
import pytest
import torch
import yaml

from lfgcl_env import zoo

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
ALL = pytest.mark.parametrize("algorithm", zoo.ALGORITHMS)


@pytest.fixture(scope="module")
def env():
    return gym.make("LFGCL-ResNet20-v0", weights="random", images=IMAGES, num_images=4)


@ALL
def test_the_file_has_what_rl_zoo3_needs(algorithm):
    table = yaml.safe_load(zoo.path(algorithm).read_text())
    assert "default" in table
    for settings in table.values():
        assert settings["n_timesteps"] > 0
        assert settings["policy"] == "MlpPolicy"
        assert settings["env_wrapper"][0] == "gymnasium.wrappers.FlattenObservation"


@ALL
def test_environments_without_settings_of_their_own_have_the_default(algorithm):
    default = zoo.settings(algorithm)
    assert zoo.settings(algorithm, "LFGCL-ResNet56-v0") == default
    default["policy"] = "changed"
    assert zoo.settings(algorithm)["policy"] == "MlpPolicy"


@ALL
def test_the_agent_has_the_settings_and_learns(algorithm, env):
    pytest.importorskip("stable_baselines3")
    on_policy = algorithm == "ppo"
    few = {"n_steps": 4, "batch_size": 4} if on_policy else {"learning_starts": 2}
    agent = zoo.make(algorithm, env, 0, **few)
    settings = zoo.settings(algorithm)
    assert agent.policy.net_arch == settings["policy_kwargs"]["net_arch"]
    assert agent.seed == 0
    groups, features = env.observation_space.shape
    assert agent.observation_space.shape == (groups * features,)
    assert agent.action_space.low.tolist() == [-1.0] * groups
    agent.learn(8)
    action, _ = agent.predict(agent.observation_space.sample())
    assert agent.action_space.contains(action)


def test_noise_is_as_set(env):
    pytest.importorskip("stable_baselines3")
    noise = zoo.make("ddpg", env, 0).action_noise
    assert noise._sigma.tolist() == [zoo.settings("ddpg")["noise_std"]] * 9
    assert zoo.make("sac", env, 0).action_noise is None


def test_an_unknown_algorithm_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'ddpg'"):
        zoo.settings("ddgp")
