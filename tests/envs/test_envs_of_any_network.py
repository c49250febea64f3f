"""Environments of networks with other inputs than images, or other outputs than logits."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from networks_for_tests import images, plain
from unusual_networks import UNUSUAL, Detecting, made, noise

import lfgcl_env  # noqa: F401 (registers the ids)
from lfgcl_env.images import LabelledImages
from lfgcl_env.images.arrays import shape_of


@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.parametrize("env_id", ["LFGCL-v0", "AMC-v0"])
def test_any_network_and_inputs_make_an_environment(name, env_id):
    network, inputs = made(name)
    env = gym.make(
        env_id, network=network, images=inputs, num_images=None, reward="similarity", budget=0.9
    )
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    ended = False
    while not ended:
        _, reward, ended, _, info = env.step(np.full(env.action_space.shape, 0.5, np.float32))
    assert 0 < reward < 1
    own = env.unwrapped
    pruned = own.problem.compress(info["keep"])
    assert 0 < own.judge(pruned, info["keep"]) <= 1


def test_a_module_takes_the_shape_of_a_tensor_of_images():
    env = gym.make("LFGCL-v0", network=plain().eval(), images=images(8, 48), num_images=None)
    assert env.unwrapped.problem.baseline.input_shape == (3, 48, 48)


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (np.zeros((2, 24, 20, 3), np.uint8), (3, 24, 20)),
        (np.zeros((2, 3, 24, 20), np.uint8), (3, 24, 20)),
        (torch.zeros(2, 24, 20, 1).byte(), (1, 24, 20)),
        (torch.zeros(2, 24, 20, 3), (24, 20, 3)),
        (torch.zeros(2, 7), (7,)),
        (torch.zeros(2), None),
    ],
)
def test_channels_of_pixels_may_come_last(array, shape):
    assert shape_of(array) == shape


@pytest.mark.parametrize(
    "arguments",
    [
        {"network": plain().eval(), "input_shape": (3, 32, 32)},
        {"network": "resnet20", "weights": "random"},
    ],
)
def test_images_of_another_shape_than_the_input_shape_name_it(arguments):
    with pytest.raises(ValueError, match=r"images of shape \(3, 48, 48\).*input_shape is \(3, 32"):
        gym.make("LFGCL-v0", images=images(8, 48), num_images=None, **arguments)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("synthetic", r"synthetic images are \(channels, height, width\), and Sequential takes"),
        ("CIFAR10", r"'CIFAR10' holds images, and the network takes inputs of shape \(20,\)"),
        (np.zeros((8, 20), np.uint8), r"uint8 pixels are images .*inputs of shape \(20,\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:the normalization")
def test_images_are_refused_where_inputs_are_none(source, complaint):
    with pytest.raises(ValueError, match=complaint) as refused:
        gym.make("LFGCL-v0", network=made("table")[0], images=source, input_shape=(20,))
    assert "\n" not in str(refused.value)


def test_noise_has_any_shape():
    network = made("sound")[0]
    env = gym.make("LFGCL-v0", network=network, images="random", num_images=8, input_shape=(3, 40))
    assert env.unwrapped.problem.batches[0].shape == (8, 3, 40)


def test_accuracy_needs_classes():
    network, inputs = made("segmentation")
    labelled = LabelledImages(inputs, torch.zeros(len(inputs), dtype=torch.int64), "mine")
    with pytest.raises(ValueError, match="needs a network that returns one score for every class"):
        gym.make(
            *["LFGCL-v0"], network=network, images=inputs, num_images=None,
            reward="accuracy", labelled=labelled,
        )  # fmt: skip


def test_accuracy_of_sequences_is_measured():
    network, inputs = made("sound")
    with torch.no_grad():
        labels = network(inputs).argmax(1)
    env = gym.make(
        *["LFGCL-v0"], network=network, images=inputs, num_images=None,
        reward="accuracy", labelled=LabelledImages(inputs, labels, "mine"),
    )  # fmt: skip
    assert env.unwrapped.score(network, env.unwrapped.problem.channels) == 1.0


def test_detectors_are_judged_by_the_features_that_they_are_scored_by():
    torch.manual_seed(0)
    env = gym.make(
        *["LFGCL-v0"], network=Detecting().eval(), images=noise(16, 3, 8, 8), num_images=None,
        features=["backbone.2"],
    ).unwrapped  # fmt: skip
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.full(env.action_space.shape, 0.5, np.float32))
    pruned = env.problem.compress(info["keep"])
    assert env.judge(pruned, info["keep"]) == pytest.approx(reward)
