"""The registered environments: every id keeps Gymnasium's contract and is reproducible."""

import os
import pickle
import subprocess
import sys
import warnings
from functools import cache

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import FlattenObservation, RescaleAction
from networks_for_tests import awaken, plain

import lfgcl_env
from lfgcl_env.envs import FEATURES
from lfgcl_env.envs.registration import FLAT_IDS, GLOBAL_IDS, LAYERWISE_IDS, register_all
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.criteria.brain_surgeon import Elimination

QUICK = {"weights": "random", "images": "random", "num_images": 8}
CHEAP = QUICK | {"criterion": "l1", "repair": "batchnorm"}
UNLABELLED = CHEAP | {"reward": "similarity"}
ALL_IDS = GLOBAL_IDS | LAYERWISE_IDS
SMALL = "LFGCL-ResNet20-v0"
OWN = f"{__name__}:own_network"


def own_network() -> torch.nn.Module:
    return awaken(plain())


def straight_eliminations(problem: PruningProblem) -> dict[str, Elimination]:
    return {
        group.name: Elimination(
            np.arange(group.channels), np.linspace(1.0, 0.0, group.channels + 1)
        )
        for group in problem.groups
    }


@pytest.fixture
def quick_eliminations(monkeypatch):
    """Spare large networks the error curves of their groups: they have tests of their own."""
    monkeypatch.setattr(PruningProblem, "eliminations", property(straight_eliminations))


@cache
def pair(env_id: str) -> tuple[gym.Env, gym.Env]:
    """Two environments made alike, shared by the tests of an id."""
    arguments = cheap(env_id)
    return gym.make(env_id, **arguments), gym.make(env_id, **arguments)


def cheap(env_id: str) -> dict:
    return UNLABELLED if env_id in LAYERWISE_IDS else CHEAP


@pytest.fixture(params=ALL_IDS)
def both(request, quick_eliminations) -> tuple[gym.Env, gym.Env]:
    return pair(request.param)


def small(**arguments) -> gym.Env:
    return gym.make(SMALL, **(QUICK | arguments))


def episode(env: gym.Env, seed: int, steps: int = 2) -> list:
    """Everything an agent sees in some steps of random actions."""
    seen = [env.reset(seed=seed)]
    env.action_space.seed(seed)
    for _ in range(steps):
        seen.append(env.step(env.action_space.sample()))
        if seen[-1][2]:
            seen.append(env.reset())
    return seen


def assert_same(one, other) -> None:
    """Equal to the last bit, types included."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_same(first, second)
    else:
        assert one == other


def test_every_id_passes_the_checkers_of_gymnasium_and_stable_baselines3_without_a_warning(both):
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(both[0].unwrapped)
        check_for_sb3(RescaleAction(FlattenObservation(both[1]), -1, 1))


def test_two_copies_of_every_id_see_exactly_the_same_under_one_seed(both):
    one, other = both
    steps = one.unwrapped.steps_per_strategy + 1
    for _ in range(2):
        other.unwrapped.forget()
        assert_same(episode(one, 5, steps), episode(other, 5, steps))


@pytest.mark.parametrize("both", GLOBAL_IDS, indirect=True)
def test_every_global_id_has_the_documented_spaces_episode_and_info(both):
    env = both[0]
    problem = env.unwrapped.problem
    groups = len(problem.groups)
    assert env.action_space == gym.spaces.Box(0.0, 1.0, (groups,), np.float32)
    assert env.observation_space == gym.spaces.Box(-1.0, 1.0, (groups, len(FEATURES)), np.float32)
    first, info = env.reset(seed=1)
    assert (info["similarity"], info["macs_ratio"], info["budget"]) == (1.0, 1.0, 0.5)
    assert info["keep"].tolist() == problem.channels.tolist()
    assert info["prune_ratios"].tolist() == [0.0] * groups
    action = env.action_space.sample()
    second, reward, terminated, truncated, info = env.step(action)
    assert (terminated, truncated, info["is_success"]) == (True, False, True)
    assert type(reward) is float
    assert reward == info["similarity"] <= 1
    assert info["keep"].tolist() == problem.project(action).tolist()
    assert info["macs"] == problem.cost(info["keep"]).macs
    assert info["macs_ratio"] <= 0.5
    assert 0 < info["params_ratio"] < 1
    assert info.keys() == {
        "similarity", "macs", "macs_ratio", "params_ratio", "budget", "prune_ratios", "keep",
        "is_success",
    }  # fmt: skip
    for name, value in info.items():
        assert isinstance(value, (int, float, bool, np.ndarray)), name
    for observation in (first, second):
        assert env.observation_space.contains(observation)
        assert np.isfinite(observation).all()
    assert not np.shares_memory(first, second)
    kept = (second[:, FEATURES.index("keep_ratio")] + 1) / 2
    assert kept == pytest.approx(info["keep"] / problem.channels, abs=1e-6)
    assert np.array_equal(first[:, :-3], second[:, :-3])


@pytest.mark.parametrize("both", LAYERWISE_IDS, indirect=True)
def test_every_layerwise_id_has_the_documented_spaces_episode_and_info(both):
    env = both[0]
    problem = env.unwrapped.problem
    groups = len(problem.groups)
    assert env.action_space == gym.spaces.Box(0.0, 1.0, (1,), np.float32)
    assert env.observation_space == gym.spaces.Box(0.0, 1.0, (11,), np.float32)
    observation, info = env.reset(seed=1)
    assert (info["similarity"], info["macs_ratio"], info["budget"]) == (1.0, 1.0, 0.5)
    common = info.keys()
    env.unwrapped.forget()
    for group in range(groups):
        shown = observation
        assert shown[0] == pytest.approx(group / (groups - 1))
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        assert not np.shares_memory(shown, observation)
        assert (terminated, truncated) == (group == groups - 1, False)
        assert info.keys() == common | {"is_success", "executed_action"}
        assert info["executed_action"] == info["prune_ratios"][group] <= 0.8
        assert observation[-1] == pytest.approx(info["executed_action"])
        assert (info["keep"][group + 1 :] == problem.channels[group + 1 :]).all()
        assert type(reward) is type(info["executed_action"]) is float
        if not terminated:
            assert reward == info["similarity"] == 0.0
            assert not problem.known(info["keep"])
    assert reward == info["similarity"] == problem.evaluate(info["keep"]).similarity
    assert info["is_success"] is True
    assert info["macs_ratio"] <= 0.5


@pytest.mark.parametrize("mode", ["ansi", "rgb_array", "human"])
def test_every_id_renders_in_every_mode(both, mode, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    env = both[0].unwrapped
    monkeypatch.setattr(env, "render_mode", mode)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env.reset(seed=0)
        before = env.render()
        for left in reversed(range(env.steps_per_strategy)):
            monkeypatch.setattr(env, "render_mode", None if left else mode)  # spares the frames
            env.step(np.linspace(0, 1, env.action_space.shape[0]))
        after = env.render()
        env.close()
    if mode == "ansi":
        assert len(after.splitlines()) == len(env.problem.groups) + 2
        assert all(group.name in after for group in env.problem.groups)
        assert "not scored" in before
        assert f"similarity {env.problem.evaluate(env._keep).similarity:.4f}" in after
    elif mode == "rgb_array":
        assert (after.shape, after.dtype) == ((480, 800, 3), np.uint8)
        assert not np.array_equal(before, after)
    else:
        assert before is after is None


def test_every_id_can_be_made_from_its_json(both):
    env = both[0]
    spec = EnvSpec.from_json(env.spec.to_json())
    assert spec.kwargs == env.spec.kwargs == {"network": ALL_IDS[env.spec.id], **cheap(env.spec.id)}
    assert pickle.loads(pickle.dumps(env.spec)) == env.spec


def test_an_env_made_from_its_spec_is_the_same():
    env = small(budget=[0.4, 0.6], horizon=2, features=["layer2"], criterion="fpgm")
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert_same(episode(env, 3, 4), episode(again, 3, 4))


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
@pytest.mark.parametrize("repair", ["batchnorm", "least_squares"])
def test_a_pickled_env_goes_on_alike(pickler, repair):
    env = small(budget=(0.4, 0.6), horizon=3, repair=repair).unwrapped
    env.reset(seed=2)
    env.step(np.linspace(0, 1, 9))
    copied = pickler.loads(pickler.dumps(env))
    for ratio in (0.2, 0.9):
        action = np.linspace(ratio, 0.5, 9)
        assert_same(env.step(action), copied.step(action))
    assert_same(env.reset(), copied.reset())


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_vector_envs_give_what_single_ones_do(mode):
    actions = np.stack([np.linspace(0, 1, 9), np.linspace(1, 0, 9)]).astype(np.float32)
    single = small()
    single.reset(seed=0)
    expected = []
    for action in actions:
        single.reset()
        expected.append(single.step(action)[1])
    envs = gym.make_vec(SMALL, num_envs=2, vectorization_mode=mode, **QUICK)
    try:
        observations, _ = envs.reset(seed=0)
        assert observations.shape == (2, 9, len(FEATURES))
        _, rewards, terminated, truncated, infos = envs.step(actions)
    finally:
        envs.close()
    assert rewards.tolist() == pytest.approx(expected, abs=1e-6)
    assert terminated.all()
    assert not truncated.any()
    assert infos["is_success"].all()


@pytest.mark.slow
def test_async_vector_envs_work_where_pytorch_uses_several_threads():
    """Forked processes inherit OpenMP's pool without its threads, and used to wait for them."""
    code = (
        "import gymnasium as gym, lfgcl_env, torch\n"
        "from torch import nn\ntorch.set_num_threads(2)\n"
        "network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 3),\n"
        "    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()\n"
        "envs = gym.make_vec('LFGCL-v0', num_envs=2, vectorization_mode='async',\n"
        "    network=network, images='random', num_images=64, repair='none')\n"
        "envs.reset(seed=0); print(envs.step(envs.action_space.sample())[1].shape); envs.close()"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, timeout=120, capture_output=True, text=True
    )
    assert done.stdout.strip() == "(2,)", done.stderr


@pytest.mark.parametrize(
    ("arguments", "groups"),
    [
        ({"network": own_network()}, 2),
        ({"network": OWN, "weights": "published"}, 2),
        ({"network": "torchvision:resnet18", "weights": "random", "input_shape": (3, 32, 32),
          "criterion": "l1", "repair": "none"}, 8),
        ({"network": "resnet20", "weights": "random", "scope": "all",
          "network_arguments": {"shortcut": "B"}}, 12),
    ],
)  # fmt: skip
def test_other_networks_go_into_the_general_id(arguments, groups, quick_eliminations):
    env = gym.make("LFGCL-v0", images="random", num_images=8, **arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)
    assert env.action_space.shape == (groups,)
    assert 0 < episode(env, 0)[1][1] < 1


def test_ids_are_registered_once_and_by_importing_alone():
    before = dict(gym.registry)
    register_all()
    assert gym.registry == before
    ours = {name for name in gym.registry if name.startswith(("LFGCL-", "AMC-"))}
    assert set(ALL_IDS | FLAT_IDS) == ours
    code = (
        "import gymnasium as gym; "
        f"print(gym.make('lfgcl_env:{SMALL}', **{QUICK}).action_space.shape)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True
    )
    assert done.stdout.strip() == "(9,)", done.stderr
    assert lfgcl_env.__version__
