"""Settings of Stable-Baselines3 that rl_zoo3 reads too, agents of them, and their extractor."""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import FlattenObservation, RescaleAction
from networks_for_tests import Residual, awaken, images, plain

from lfgcl_env import zoo
from lfgcl_env.envs import FEATURES
from lfgcl_env.envs.registration import ANY_IDS, GLOBAL_IDS, LAYERWISE_IDS
from lfgcl_env.search.record_evaluations import RecordEvaluations

ALL = pytest.mark.parametrize("algorithm", zoo.ALGORITHMS)
NO_RL_ZOO3 = "rl_zoo3 is not installed: run `pip install rl_zoo3`"
QUICK = {"criterion": "l1", "repair": "none"}


def small(network: torch.nn.Module, **arguments) -> gym.Env:
    arguments = QUICK | {"images": images(), "num_images": None} | arguments
    return gym.make("LFGCL-v0", network=awaken(network), input_shape=(3, 32, 32), **arguments)


def few(algorithm: str) -> dict[str, int]:
    """Settings with which an agent learns within eight steps."""
    if algorithm == "ppo":
        return {"n_steps": 4, "batch_size": 4, "n_epochs": 2}
    return {"learning_starts": 2, "gradient_steps": 2}


@pytest.fixture(scope="module")
def env():
    return small(plain())


@pytest.fixture
def extractor():
    pytest.importorskip("stable_baselines3")
    torch.manual_seed(0)
    return zoo.LayerwiseExtractor(gym.spaces.Box(-1, 1, (5, len(FEATURES))))


@pytest.fixture
def rows():
    return torch.rand(3, 5, len(FEATURES), generator=torch.Generator().manual_seed(0)) * 2 - 1


@ALL
def test_rl_zoo3_reads_the_file_as_we_do(algorithm, env, tmp_path):
    zoo3 = pytest.importorskip("rl_zoo3", reason=NO_RL_ZOO3)
    from rl_zoo3.exp_manager import ExperimentManager

    file = str(zoo.path(algorithm))
    manager = ExperimentManager(
        Namespace(), algorithm, "LFGCL-ResNet20-v0", str(tmp_path), config=file, verbose=0
    )
    read, _ = manager.read_hyperparameters()
    assert read == zoo.settings(algorithm)
    arguments, wrap, _, vector_wrap = manager._preprocess_hyperparams(dict(read))
    assert vector_wrap is None
    assert manager.n_timesteps == read["n_timesteps"] > 0
    for name in ("noise_type", "noise_std"):
        arguments.pop(name, None)
    agent = zoo3.ALGOS[algorithm](env=wrap(env), device="cpu", **arguments)
    ours = zoo.make(algorithm, env, 0)
    assert type(agent) is type(ours)
    assert agent.action_space == ours.action_space
    assert agent.observation_space == ours.observation_space
    assert str(agent.policy) == str(ours.policy)


@ALL
def test_environments_without_settings_of_their_own_have_the_default(algorithm):
    default = zoo.settings(algorithm)
    assert zoo.settings(algorithm, "LFGCL-ResNet56-v0") == default
    default["policy"] = "changed"
    assert zoo.settings(algorithm)["policy"] == "MlpPolicy"


@ALL
@pytest.mark.parametrize("env_id", [*GLOBAL_IDS, *LAYERWISE_IDS, *ANY_IDS])
def test_every_registered_environment_has_settings_that_fit(algorithm, env_id):
    chosen = zoo.settings(algorithm, env_id)
    assert ("LayerwiseExtractor" in chosen.get("policy_kwargs", "")) == (
        algorithm == "ddpg" and env_id.startswith("LFGCL-")
    )


@ALL
def test_the_agent_searches_layerwise_too(algorithm):
    pytest.importorskip("sb3_contrib")
    env = gym.make(
        "AMC-ResNet20-v0", weights="random", images="random", num_images=4, reward="similarity"
    )
    agent = zoo.make(algorithm, env, 0, **few(algorithm))
    with env.unwrapped.problem.count() as counted:
        agent.learn(12)
    assert agent.env.observation_space.shape == (11,)
    assert len(counted) > 0


@ALL
def test_the_agent_is_of_its_class_has_the_settings_and_learns(algorithm, env):
    pytest.importorskip("sb3_contrib")
    agent = zoo.make(algorithm, env, 0, **few(algorithm))
    assert type(agent).__name__.lower() == algorithm
    assert agent.learning_rate == zoo.settings(algorithm)["learning_rate"]
    assert agent.seed == 0
    groups, features = env.observation_space.shape
    assert agent.observation_space.shape == (groups * features,)
    assert agent.action_space.low.tolist() == [-1.0] * groups
    before = [parameter.clone() for parameter in agent.policy.parameters()]
    agent.learn(8)
    changed = [
        not torch.equal(old, new)
        for old, new in zip(before, agent.policy.parameters(), strict=True)
    ]
    assert any(changed)
    action, _ = agent.predict(agent.observation_space.sample())
    assert agent.action_space.contains(action)


@ALL
@pytest.mark.parametrize("layerwise", [False, True])
def test_a_saved_agent_answers_alike(algorithm, layerwise, env, tmp_path):
    pytest.importorskip("sb3_contrib")
    changes = few(algorithm)
    if layerwise:
        changes["policy_kwargs"] = {
            "net_arch": [8],
            "features_extractor_class": zoo.LayerwiseExtractor,
            "features_extractor_kwargs": {"width": 8, "per_group": 2},
        }
    agent = zoo.make(algorithm, env, 0, **changes)
    agent.learn(6)
    agent.save(tmp_path / "agent.zip")
    again = type(agent).load(tmp_path / "agent.zip")
    observation = agent.observation_space.sample()
    assert np.array_equal(
        agent.predict(observation, deterministic=True)[0],
        again.predict(observation, deterministic=True)[0],
    )


@ALL
def test_two_agents_with_one_seed_score_the_same_strategies(algorithm, env):
    pytest.importorskip("sb3_contrib")
    seen = []
    for _ in range(2):
        visits = RecordEvaluations(env, [], lambda record, new: None)
        zoo.make(algorithm, visits, 3, **few(algorithm)).learn(8)
        seen.append([record.evaluation.keep for record in visits.finish()])
    assert seen[0]
    assert seen[0] == seen[1]


def test_noise_is_as_set(env):
    pytest.importorskip("stable_baselines3")
    noise = zoo.make("ddpg", env, 0).action_noise
    assert noise._sigma.tolist() == [zoo.settings("ddpg")["noise_std"]] * 2
    assert zoo.make("sac", env, 0).action_noise is None
    with pytest.raises(ValueError, match=r"unknown noise_type 'norml'.*Did you mean 'normal'"):
        zoo.make("ddpg", env, 0, noise_type="norml")


def test_an_unknown_algorithm_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'ddpg'"):
        zoo.settings("ddgp")
    with pytest.raises(ValueError, match="Did you mean 'crossq'"):
        zoo.check_installed("cross_q")


@pytest.mark.parametrize(
    ("algorithm", "needs"), [("td3", "Stable-Baselines3"), ("tqc", "sb3-contrib")]
)
def test_a_missing_package_names_the_extra(algorithm, needs, env, monkeypatch):
    monkeypatch.setattr("lfgcl_env.zoo.sb3.find_spec", lambda name: None)
    message = rf"^agent {algorithm} needs {needs}: run `pip install lfgcl-env\[sb3\]`$"
    with pytest.raises(ImportError, match=message):
        zoo.make(algorithm, env, 0)


def test_the_zoo_can_be_imported_without_stable_baselines3():
    code = (
        "import sys; sys.modules['stable_baselines3'] = None; from lfgcl_env import zoo\n"
        "print(zoo.settings('ddpg')['policy'])\n"
        "try: zoo.LayerwiseExtractor\nexcept ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    policy, message = done.stdout.splitlines()
    assert policy == "MlpPolicy", done.stderr
    assert message == (
        "LayerwiseExtractor needs Stable-Baselines3: run `pip install lfgcl-env[sb3]`"
    )


def test_rows_and_flattened_rows_have_the_same_features(extractor, rows):
    assert extractor(rows).shape == (3, extractor.features_dim) == (3, 5 * 8 + 32)
    flat = zoo.LayerwiseExtractor(gym.spaces.Box(-1, 1, (5 * len(FEATURES),)))
    flat.load_state_dict(extractor.state_dict())
    assert torch.equal(flat(rows.flatten(1)), extractor(rows))


def test_a_change_in_one_group_is_seen_by_all_and_most_by_itself(extractor, rows):
    changed = rows.clone()
    changed[:, 2] *= -1
    difference = (extractor(changed) - extractor(rows)).detach().abs()
    per_group = difference[:, : 5 * 8].view(3, 5, 8).mean((0, 2))
    assert (per_group > 1e-5).all()
    assert per_group.argmax() == 2


def test_positions_tell_equal_groups_apart_and_nothing_else_does(extractor, rows):
    equal = rows[:, :1].expand_as(rows)
    per_group = extractor(equal)[:, : 5 * 8].view(3, 5, 8)
    assert (per_group[:, 0] - per_group[:, 4]).abs().max() > 1e-2
    order = torch.tensor([3, 0, 4, 1, 2])
    extractor.position.zero_()
    features = extractor(rows)
    permuted = extractor(rows[:, order])
    assert torch.allclose(
        permuted[:, :40].view(3, 5, 8), features[:, :40].view(3, 5, 8)[:, order], atol=1e-6
    )
    assert torch.allclose(permuted[:, 40:], features[:, 40:], atol=1e-6)


@pytest.mark.parametrize("groups", [1, 2, 27])
def test_its_weights_fit_any_number_of_groups(extractor, groups):
    other = zoo.LayerwiseExtractor(gym.spaces.Box(-1, 1, (groups, len(FEATURES))))
    other.load_state_dict(extractor.state_dict())
    features = other(torch.zeros(2, groups, len(FEATURES)))
    assert features.shape == (2, groups * 8 + 32)
    assert torch.isfinite(features).all()


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((7,), {}, r"shape \(groups, 22\), or the same flattened, got \(7,\)"),
        ((22, 3), {}, r"got \(22, 3\)"),
        ((2, 22), {"width": 30, "heads": 4}, "multiple of twice the 4 heads, got 30: try 32"),
    ],
)
def test_the_extractor_refuses_what_it_cannot_read(shape, arguments, message):
    pytest.importorskip("stable_baselines3")
    with pytest.raises(ValueError, match=message):
        zoo.LayerwiseExtractor(gym.spaces.Box(-1, 1, shape), **arguments)


@pytest.mark.parametrize("network", [plain, Residual])
@pytest.mark.parametrize("flattened", [False, True])
def test_plain_stable_baselines3_takes_the_extractor(network, flattened):
    sb3 = pytest.importorskip("stable_baselines3")
    env = small(network())
    wrapped = RescaleAction(FlattenObservation(env) if flattened else env, -1, 1)
    kwargs = {"net_arch": [8], "features_extractor_class": zoo.LayerwiseExtractor}
    agent = sb3.DDPG("MlpPolicy", wrapped, policy_kwargs=kwargs, learning_starts=2, device="cpu")
    before = agent.actor.features_extractor.embed.weight.clone()
    agent.learn(6)
    assert not torch.equal(before, agent.actor.features_extractor.embed.weight)
    assert agent.actor.features_extractor.features_dim == 8 * env.action_space.shape[0] + 32


def test_settings_may_be_python_as_rl_zoo3_evaluates_it(env):
    pytest.importorskip("stable_baselines3")
    text = (
        "dict(net_arch=[8], activation_fn=nn.Tanh, features_extractor_class="
        "get_class_by_name('lfgcl_env.zoo.LayerwiseExtractor'))"
    )
    agent = zoo.make("td3", env, 0, policy_kwargs=text)
    assert type(agent.actor.features_extractor) is zoo.LayerwiseExtractor
    assert agent.policy.activation_fn is torch.nn.Tanh


@pytest.mark.parametrize(
    "text",
    ["__import__('os').mkdir('planted')", "dict(a=open('planted', 'w'))", "dict(", "[1]",
     "dict(a=nn.Tan)", "dict(a=get_class_by_name('os'))"],
)  # fmt: skip
def test_settings_written_as_python_are_read_and_never_run(env, text, tmp_path, monkeypatch):
    pytest.importorskip("stable_baselines3")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"policy_kwargs .* cannot be read: write dict"):
        zoo.make("td3", env, 0, policy_kwargs=text)
    assert not list(tmp_path.iterdir())


def test_logit_actions_are_symmetric_around_uniform_ratios(env):
    wrapped = zoo.LogitAction(env, scale=2)
    assert wrapped.action_space == gym.spaces.Box(-1, 1, (2,), np.float32)
    wrapped.reset(seed=0)
    uniform = wrapped.step(np.zeros(2, np.float32))[4]["keep"]
    assert uniform.tolist() == env.unwrapped.problem.project([0.5, 0.5]).tolist()
    action = np.array([-0.7, 0.3])
    assert wrapped.action(action) == pytest.approx(1 - wrapped.action(-action), abs=1e-6)
    assert (np.diff(wrapped.action(np.linspace(-1, 1, 9))) > 0).all()


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), "2"])
def test_logit_actions_refuse_a_scale_that_is_none(scale, env):
    with pytest.raises(ValueError, match="scale must be a finite number above 0"):
        zoo.LogitAction(env, scale=scale)


def test_logit_actions_are_not_wrapped_twice(env):
    with pytest.raises(ValueError, match=r"wraps actions in \[0, 1\], got Box\(-1"):
        zoo.LogitAction(zoo.LogitAction(env, scale=1), scale=1)


def test_rl_zoo3_trains_by_the_documented_command(tmp_path):
    pytest.importorskip("rl_zoo3", reason=NO_RL_ZOO3)
    command = zoo.__doc__.split("::\n\n")[1].split("\n\n")[0]
    assert command.split()[:5] == ["python", "-m", "rl_zoo3.train", "--algo", "ddpg"]
    changes = (
        f" -f {tmp_path} -n 8 --eval-freq -1 --seed 0 --device cpu --env-kwargs num_images:4"
        """ weights:"'random'" images:"'random'" repair:"'none'" criterion:"'l1'" """
    )
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command + changes,
        shell=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    run = tmp_path / "ddpg" / "LFGCL-ResNet20-v0_1"
    assert (run / "LFGCL-ResNet20-v0.zip").is_file()
    used = (run / "LFGCL-ResNet20-v0" / "config.yml").read_text()
    assert all(f"{zoo.settings('ddpg')[key]}" in used for key in ("learning_rate", "noise_std"))


def test_stable_baselines3s_quick_start_runs():
    sb3 = pytest.importorskip("stable_baselines3")
    quick = {"weights": "random", "images": "random", "num_images": 4, "repair": "none"}
    env = gym.make("lfgcl_env:LFGCL-ResNet20-v0", render_mode="rgb_array", **quick)
    model = sb3.A2C("MlpPolicy", env, device="cpu")
    model.learn(total_timesteps=10)
    vec_env = model.get_env()
    obs = vec_env.reset()
    for _ in range(2):
        action, _state = model.predict(obs, deterministic=True)
        obs, _reward, done, info = vec_env.step(action)
        assert vec_env.render().shape[-1] == 3
        assert done.all()
        assert info[0]["terminal_observation"].shape == obs[0].shape


def test_stable_baselines3_makes_an_environment_by_its_id():
    sb3 = pytest.importorskip("stable_baselines3")
    model = sb3.PPO("MlpPolicy", "lfgcl_env:LFGCL-ResNet20-v0", device="cpu")
    assert model.action_space.shape == (9,)
