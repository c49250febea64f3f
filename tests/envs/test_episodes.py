"""Episodes of the global environment: budgets, rewards, observations, and what is refused."""

import json
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import FlattenObservation, RescaleAction
from networks_for_tests import images

from lfgcl_env.envs import FEATURES, LFGCLEnv

QUICK = {"weights": "random", "images": "random", "num_images": 8}
SMALL = "LFGCL-ResNet20-v0"


def small(**arguments) -> gym.Env:
    return gym.make(SMALL, **(QUICK | arguments))


def test_rewards_of_a_longer_episode_sum_to_its_last_similarity():
    env = small(horizon=3)
    for seed in range(2):
        env.reset(seed=seed)
        env.action_space.seed(seed)
        steps = [env.step(env.action_space.sample()) for _ in range(3)]
        assert [step[2] for step in steps] == [False, False, True]
        assert sum(step[1] for step in steps) == pytest.approx(steps[-1][4]["similarity"])
        assert steps[0][1] == steps[0][4]["similarity"]
        assert steps[1][1] == steps[1][4]["similarity"] - steps[0][4]["similarity"]


def test_a_budget_range_is_drawn_from_the_seeded_generator_and_shown():
    env = small(budget=(0.3, 0.8))
    budgets = [env.reset(seed=seed)[1]["budget"] for seed in (*range(20), 0)]
    assert all(0.3 <= budget <= 0.8 for budget in budgets)
    assert budgets[0] == budgets[-1] == float(np.random.default_rng(0).uniform(0.3, 0.8))
    assert max(budgets) - min(budgets) > 0.3
    observation, info = env.reset()
    assert observation[:, -1] == pytest.approx(2 * info["budget"] - 1, abs=1e-6)
    assert env.unwrapped.budget == info["budget"]
    _, _, _, _, after = env.step(np.full(9, 0.5))
    assert info["budget"] - 0.05 < after["macs_ratio"] <= after["budget"] == info["budget"]


def test_a_reset_option_sets_the_budget_of_one_episode():
    env = small()
    observation, info = env.reset(seed=0, options={"budget": 0.25})
    assert info["budget"] == 0.25
    assert observation[:, -1] == pytest.approx(-0.5)
    assert env.step(np.full(9, 0.1))[4]["macs_ratio"] <= 0.25
    assert env.reset()[1]["budget"] == 0.5


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"budget": 0.001}, "cannot be reached"),
        ({"budget": 1.5}, "at most 1"),
        ({"budget": "half"}, "must be a number"),
        ({"budgets": 0.5}, r"reset has the option 'budget' only, got \['budgets'\]"),
    ],
)
def test_reset_options_that_cannot_be_are_refused_and_leave_the_episode_alone(options, complaint):
    env = small().unwrapped
    env.reset(seed=0)
    before = env.budget
    with pytest.raises(ValueError, match=complaint):
        env.reset(options=options)
    assert env.budget == before
    assert env.step(np.full(9, 0.5))[4]["budget"] == before


def test_params_can_be_the_budget():
    env = small(budget_metric="params", budget=0.4)
    env.reset(seed=0)
    info = env.step(np.full(9, 0.5))[4]
    assert 0.37 < info["params_ratio"] <= 0.4
    assert info["is_success"]


def test_arrays_that_an_agent_changes_are_its_own():
    env = small(horizon=3).unwrapped
    observation, info = env.reset(seed=0)
    expected = observation.copy()
    observation[:], info["keep"][:], info["prune_ratios"][:] = 0, 1, 1
    again, info = env.reset()
    assert np.array_equal(again, expected)
    assert info["keep"].tolist() == env.problem.channels.tolist()
    action = np.full(9, 0.5, dtype=np.float32)
    kept = action.copy()
    env.step(action)[4]["keep"][:] = 1
    assert np.array_equal(action, kept)
    assert env._keep.min() > 1


@pytest.mark.parametrize(
    ("action", "complaint"),
    [
        (np.full(9, np.nan, np.float32), "must be finite: entry 0 is nan"),
        (np.full(8, 0.5, np.float32), r"must have shape \(9,\), .* got \(8,\)"),
        (np.full((9, 1), 0.5, np.float32), r"got \(9, 1\)"),
        (np.full(9, 1.5, np.float32), r"must lie in \[0, 1\], got 1.5"),
    ],
)
def test_actions_that_are_none_are_refused_and_can_be_corrected(action, complaint):
    env = small().unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match=complaint) as refused:
        env.step(action)
    assert "\n" not in str(refused.value)
    assert env.step(np.full(9, 0.5))[2]


def test_an_episode_begins_with_a_reset_and_ends():
    for env in (small(), small().unwrapped):
        with pytest.raises(gym.error.ResetNeeded):
            env.step(np.full(9, 0.5))
        with pytest.raises(gym.error.ResetNeeded):
            small(render_mode="ansi").unwrapped.render()
        env.reset(seed=0)
        env.step(np.full(9, 0.5))
        with pytest.raises(gym.error.ResetNeeded):
            env.unwrapped.step(np.full(9, 0.5))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"horizon": 0}, "horizon must be a whole number from 1 to 1,000,000, got 0"),
        ({"horizon": 1.5}, "horizon must be"),
        ({"horizon": True}, "horizon must be"),
        ({"budget": (0.6, 0.4)}, "low <= high"),
        ({"budget": (0.1, 0.2, 0.3)}, "low, high"),
        ({"budget": (0.5, 1.5)}, "at most 1"),
        ({"budget": (0.001, 0.5)}, "cannot be reached"),
        ({"budget": "half"}, "must be a number above 0 and at most 1, or a range"),
        ({"budget": float("nan")}, "must be a number above 0 and at most 1, or a range"),
        ({"budget": 0.001}, "cannot be reached"),
        ({"criterion": "l3"}, "unknown criterion 'l3'.*Did you mean"),
        ({"repair": "lest_squares"}, "Did you mean 'least_squares'"),
        ({"similarity": "cosin"}, "Did you mean 'cosine'"),
        ({"scope": "iner"}, "Did you mean 'inner'"),
        ({"network": "resnet65"}, "Did you mean 'resnet56'"),
        ({"network_arguments": {"num_clases": 5}}, "Did you mean 'num_classes'"),
        ({"num_images": 0}, "num_images must be a whole number from 1 to 1,000,000, or None"),
        ({"num_images": 1}, "at least 2 calibration images are needed, got 1"),
        ({"reward": "similarty"}, "unknown reward 'similarty'.*Did you mean 'similarity'"),
        ({"reward": "accuracy"}, "needs labels, and images='random' have none"),
        ({"features": ["layer4"]}, "no module 'layer4'.*Did you mean 'layer"),
    ],
)
def test_arguments_that_cannot_be_are_refused_in_one_sentence(arguments, complaint):
    with pytest.raises(ValueError, match=complaint) as refused:
        LFGCLEnv(**({"network": "resnet20"} | QUICK | arguments))
    assert "\n" not in str(refused.value)


def test_unknown_arguments_modes_and_ids_are_refused():
    with pytest.raises(ValueError, match=r"unexpected .* 'budgets'\. Did you mean 'budget'"):
        small(budgets=0.5)
    with pytest.raises(ValueError, match="unknown render_mode 'video': choose one of ansi"):
        LFGCLEnv(network="resnet20", render_mode="video", **QUICK)
    with pytest.raises(gym.error.NameNotFound, match=r"Did you mean: `LFGCL-ResNet(20|32)`"):
        gym.make("LFGCL-ResNet30-v0")
    with pytest.raises(gym.error.VersionNotFound):
        gym.make("LFGCL-ResNet20-v7")


def test_missing_weights_and_images_name_the_way_out(tmp_path):
    with pytest.raises(FileNotFoundError, match="nor 'embedded', nor 'random'"):
        small(weights="rndom")
    with pytest.raises((FileNotFoundError, ValueError), match="download"):
        gym.make(SMALL, weights="random", data_root=str(tmp_path))


def test_rendering_without_a_mode_warns_and_does_nothing():
    env = small().unwrapped
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode"):
        assert env.render() is None


def test_a_missing_matplotlib_names_the_extra(monkeypatch):
    env = small(render_mode="rgb_array").unwrapped
    env.reset(seed=0)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install lfgcl-env\[plots\]"):
        env.render()


def test_images_can_be_a_tensor_or_an_array():
    rewards = set()
    for source in (images(8), images(8).numpy()):
        env = small(images=source)
        env.reset(seed=0)
        rewards.add(env.step(np.full(9, 0.5))[1])
    assert len(rewards) == 1


@pytest.mark.data("CIFAR10", "resnet20")
def test_the_defaults_are_a_trained_network_and_cifar10():
    env = gym.make(SMALL)
    env.reset(seed=0)
    assert 0.3 < env.step(np.full(9, 0.5))[1] < 1


def test_the_observation_has_a_column_for_every_feature_and_tells_groups_apart():
    env = small()
    observation, _ = env.reset(seed=0)
    column = {name: observation[:, index] for index, name in enumerate(FEATURES)}
    assert column["position"].tolist() == pytest.approx(np.linspace(-1, 1, 9).tolist())
    assert column["channels"] == pytest.approx(np.log2(env.unwrapped.problem.channels) / 6 - 1)
    assert (column["coupled"] == -1).all()
    assert (column["convolution"] == 1).all()
    assert column["stride"].tolist() == pytest.approx([-1, -1, -1, -1 / 3, -1, -1, -1 / 3, -1, -1])
    assert (column["keep_ratio"] == 1).all()
    assert (column["cost_ratio"] == 1).all()
    assert (column["budget"] == 0).all()
    assert (column["error_75"] < column["error_50"]).all()
    assert (column["error_50"] < column["error_25"]).all()
    assert len({tuple(row) for row in observation.tolist()}) == 9


def test_the_observation_of_one_group_is_finite():
    """Nothing is divided by the number of other groups."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(8, 5),
    ).eval()  # fmt: skip
    env = gym.make("LFGCL-v0", network=network, images="random", num_images=8, repair="none")
    observation, _ = env.reset(seed=0)
    assert observation.shape == (1, len(FEATURES))
    assert np.isfinite(observation).all()


def test_the_observation_has_channels_where_a_strategy_counts_bundles():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, groups=4),
        torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 5),
    ).eval()  # fmt: skip
    env = gym.make("LFGCL-v0", network=network, images="random", num_images=8, repair="none")
    observation, info = env.reset(seed=0)
    assert info["keep"].tolist() == [4]
    assert observation[0, FEATURES.index("channels")] == np.log2(8) / 6 - 1


def test_ddpg_learns_on_it():
    from stable_baselines3 import DDPG

    env = RescaleAction(FlattenObservation(small()), -1, 1)
    model = DDPG("MlpPolicy", env, learning_starts=4, batch_size=4, seed=0,
                 policy_kwargs={"net_arch": [8]}, buffer_size=100)  # fmt: skip
    with env.unwrapped.problem.count() as counted:
        model.learn(20)
    assert model.num_timesteps == 20
    assert 1 < len(counted) <= 20
    action, _ = model.predict(env.reset(seed=0)[0], deterministic=True)
    assert env.step(action)[4]["is_success"]
    assert json.dumps(env.unwrapped.problem.settings())
