"""The weights and images that come with the package, as they are."""

import re

import gymnasium as gym
import pytest

from lfgcl_env.envs.registration import ANY_IDS, EMBEDDED, GLOBAL_IDS, LAYERWISE_IDS
from lfgcl_env.images import embedded_sheet
from lfgcl_env.images.calibration import default_data, default_images
from lfgcl_env.images.image_sheet import read_sheet
from lfgcl_env.networks import embedded_names, load_baseline, load_embedded
from lfgcl_env.networks.embedded_weights import read_card
from lfgcl_env.networks.state_dicts import state_sha256


def test_every_network_whose_id_promises_it_has_weights_and_images():
    assert sorted(EMBEDDED) == embedded_names()
    for env_id, network in (GLOBAL_IDS | LAYERWISE_IDS).items():
        promised = gym.spec(env_id).kwargs.get("weights") == "embedded"
        assert promised == (network in EMBEDDED and env_id not in ANY_IDS)


@pytest.mark.parametrize("name", EMBEDDED)
def test_weights_are_small_and_those_of_their_card(name):
    assert load_embedded(name).path.stat().st_size <= 2_000_000
    card, state = read_card(name), load_baseline(name, "embedded").network.state_dict()
    assert state_sha256(state) == card["weights_sha256"]
    assert {"recipe", "top1", "provenance", "licence", "training_seconds"} <= set(card)


@pytest.mark.parametrize("name", EMBEDDED)
def test_images_are_small_and_made_from_these_weights(name):
    path = embedded_sheet(name)
    assert path.stat().st_size <= 1_000_000
    pixels, made = read_sheet(path)
    assert tuple(pixels.shape) == (256, 3, 32, 32)
    state = load_baseline(name, "embedded").network.state_dict()
    assert made["weights_sha256"] == state_sha256(state)
    assert not re.search(r"/(home|root|tmp|work)/", str(made))


def test_images_are_those_of_the_networks_classes_unless_the_package_has_some():
    own = load_baseline("resnet20_cifar100", "embedded")
    assert default_images(own) == "embedded"
    assert default_data(own) == read_card("resnet20_cifar100")["data"] == "CIFAR100"
    random = load_baseline("resnet20_cifar100", "random")
    assert default_images(random) == "CIFAR100"
    assert random.normalization == own.normalization
    assert default_images(load_baseline("resnet20", "random")) == "CIFAR10"
    assert default_images(load_baseline("resnet20", "random", num_classes=3)) == "CIFAR10"


def test_a_network_that_only_the_package_has_weights_of_says_so():
    with pytest.raises(ValueError, match=r"take the network 'resnet20_cifar100' with weights='emb"):
        load_baseline("resnet20", "embedded", num_classes=100)
    with pytest.raises(
        ValueError, match=r"no published .* resnet20_cifar100 .*'embedded', 'random'"
    ):
        load_baseline("resnet20_cifar100")
