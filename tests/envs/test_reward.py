"""Rewards: of one's own, by name, wrapped, over long episodes, and what is refused."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import TransformReward
from networks_for_tests import awaken, images, plain

from lfgcl_env.envs import AMCEnv, LFGCLEnv
from lfgcl_env.images import LabelledImages, top1

PLAIN = {"images": images(8), "num_images": None, "criterion": "l1", "repair": "none"}
OWN = f"{__name__}:brightness"


def make(kind=LFGCLEnv, **arguments):
    """Two groups of 8 and 6 channels."""
    return kind(network=awaken(plain()), **(PLAIN | {"budget": 0.8} | arguments))


def brightness(network: torch.nn.Module, inputs: torch.Tensor) -> float:
    """Mean output: it can be negative, and has nothing to do with similarity."""
    return float(network(inputs).detach().mean())


def drawn_labels() -> LabelledImages:
    draw = torch.Generator().manual_seed(3)
    return LabelledImages(images(40, seed=3), torch.randint(5, (40,), generator=draw), "drawn")


def play(env, *actions) -> list[tuple]:
    """One episode of given prune ratios; returns its steps."""
    env.reset(seed=0)
    layerwise = env.unwrapped.steps_per_strategy > 1
    steps = [[ratio] for ratio in actions[0]] if layerwise else actions
    return [env.step(np.array(step, np.float32)) for step in steps]


@pytest.mark.parametrize("kind", [LFGCLEnv, AMCEnv])
@pytest.mark.parametrize("reward", [brightness, OWN])
def test_a_function_of_ones_own_scores_the_network_that_is_delivered(kind, reward):
    env = make(kind, reward=reward)
    assert env.reward_name == OWN
    for action in ([0.2, 0.6], [0.6, 0.2]):
        _, value, terminated, _, info = play(env, action)[-1]
        network = env.problem.compress(info["keep"])
        assert terminated
        assert value == info[OWN] == pytest.approx(brightness(network, PLAIN["images"]), abs=1e-5)
        assert info["similarity"] == env.problem.evaluate(info["keep"]).similarity != value


@pytest.mark.parametrize(
    "arguments",
    [
        {"reward": "similarity"},
        {"reward": brightness},
        {"reward": "accuracy", "labelled": drawn_labels()},
    ],
)
@pytest.mark.parametrize("kind", [LFGCLEnv, AMCEnv])
def test_score_is_what_a_step_rewards_when_the_network_is_the_strategys(kind, arguments):
    env = make(kind, **arguments)
    _, value, _, _, info = play(env, [0.5, 0.3])[-1]
    network = env.problem.compress(info["keep"])
    assert env.score(network, info["keep"]) == pytest.approx(value, abs=1e-5)
    assert env.score(network.train(), info["keep"]) == pytest.approx(value, abs=1e-5)
    assert network.training
    with torch.no_grad():
        network[0].weight.neg_()
    assert env.score(network, info["keep"]) != pytest.approx(value, abs=1e-3)


def test_accuracy_is_that_on_the_labelled_images_in_the_global_env():
    labelled = drawn_labels()
    env = make(reward="accuracy", labelled=labelled)
    _, value, _, _, info = play(env, [0.5, 0.3])[-1]
    assert value == info["accuracy"] == top1(env.problem.compress(info["keep"]), labelled) / 100
    assert env.labelled is labelled


@pytest.mark.parametrize("reward", ["similarity", brightness])
def test_gains_of_a_longer_episode_sum_to_its_last_score(reward):
    env = make(reward=reward, horizon=3)
    steps = play(env, [0.2, 0.6], [0.6, 0.2], [0.4, 0.4])
    scores = [step[4][env.reward_name] for step in steps]
    assert [step[1] for step in steps] == [
        scores[0], scores[1] - scores[0], scores[2] - scores[1]
    ]  # fmt: skip
    assert sum(step[1] for step in steps) == pytest.approx(scores[-1])
    assert play(make(reward=reward), [0.4, 0.4])[0][1] == scores[-1]


def test_a_wrapper_that_negates_the_reward_leaves_info_to_people():
    env = make()
    wrapped = TransformReward(env, lambda reward: -reward)
    _, value, _, _, info = play(wrapped, [0.2, 0.6])[-1]
    assert value == -info["similarity"] < 0


def test_a_strategy_is_scored_once_until_all_is_forgotten():
    called = []

    def counting(network, inputs):
        called.append(network)
        return float(len(called))

    env = make(reward=counting)
    assert [play(env, [0.2, 0.6])[0][1] for _ in range(2)] == [1.0, 1.0]
    env.forget()
    assert play(env, [0.2, 0.6])[0][1] == 2.0
    keep = env.problem.project([0.6, 0.2])
    env.remember(keep, -3.0)
    assert play(env, [0.6, 0.2])[0][1] == -3.0
    assert len(called) == 2


def test_a_function_gets_an_own_network_and_images_that_it_may_change():
    def spoiling(network, inputs):
        assert not network.training
        assert not torch.is_grad_enabled()
        inputs.zero_()
        for parameter in network.parameters():
            parameter.zero_()
        return 1.0

    env, other = make(reward=spoiling), make()
    spoilt, info = play(env, [0.2, 0.6])[-1][4], play(other, [0.2, 0.6])[-1][4]
    assert spoilt["similarity"] == info["similarity"]
    env.forget()
    assert play(env, [0.2, 0.6])[-1][4]["similarity"] == info["similarity"]


@pytest.mark.parametrize("value", [1, np.float32(0.5), torch.tensor(0.5), np.array([0.25])])
def test_numbers_of_every_library_are_rewards(value):
    reward = play(make(reward=lambda network, inputs: value), [0.2, 0.6])[0][1]
    assert type(reward) is float
    assert reward == float(np.ravel(value)[0])


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), None, "1", True, 1j, [1.0], 10**400, torch.zeros(2),
     torch.tensor(float("nan"))],
)  # fmt: skip
def test_what_is_no_finite_number_is_refused_by_the_rewards_name(value):
    env = make(reward=lambda network, inputs: value)
    with pytest.raises(ValueError, match=r"reward '.*lambda>' must return a finite number") as told:
        play(env, [0.2, 0.6])
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("a\nb"), ZeroDivisionError()])
def test_a_function_that_fails_is_named(error):
    def failing(network, inputs):
        raise error

    with pytest.raises(ValueError, match=r"reward '.*failing' failed \(") as told:
        play(make(reward=failing), [0.2, 0.6])
    assert "\n" not in str(told.value)
    assert told.value.__cause__ is error


@pytest.mark.parametrize(
    ("reward", "complaint"),
    [
        ("similarty", "unknown reward 'similarty': choose one of .*Did you mean 'similarity'"),
        ("no.such.module:f", "cannot import 'no.such.module' of reward"),
        (f"{__name__}:brightnes", "Did you mean 'brightness'"),
        (f"{__name__}:OWN", "is not callable"),
        (3, "reward must be a name or a function, got 3"),
        (None, "reward must be a name or a function, got None"),
    ],
)
@pytest.mark.parametrize("kind", [LFGCLEnv, AMCEnv])
def test_unknown_rewards_are_refused_before_anything_is_loaded(kind, reward, complaint):
    with pytest.raises(ValueError, match=complaint):
        kind(network="no such network", reward=reward)


def test_an_env_with_a_named_reward_is_made_from_its_json_and_pickled():
    arguments = {"weights": "random", "images": "random", "num_images": 4, "repair": "none"}
    env = gym.make("LFGCL-ResNet20-v0", reward=OWN, criterion="l1", **arguments)
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    copied = pickle.loads(pickle.dumps(env.unwrapped))
    rewards = {play(made, np.full(9, 0.5))[0][1] for made in (env, again, copied)}
    assert len(rewards) == 1
