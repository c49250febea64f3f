"""Accuracies that come with weights."""

from dataclasses import replace

import pytest
import torch

from lfgcl_env.images import load_test_set, top1
from lfgcl_env.networks import PUBLISHED, Normalization, embedded_names, load_baseline
from lfgcl_env.networks.embedded_weights import read_card
from lfgcl_env.networks.stated_accuracy import stated_top1
from lfgcl_env.pruning.repair.fused_forward import fused


def stated(network="resnet20", data="CIFAR10", images=10_000, **arguments):
    baseline = load_baseline(network, weights=arguments.pop("weights", "embedded"), **arguments)
    return stated_top1(baseline, data, images)


def test_an_accuracy_is_stated_of_the_network_as_it_was_trained():
    assert stated() == 91.13
    assert stated("resnet20_cifar100", "CIFAR100") == 67.76
    assert stated(images=5000) is None
    assert stated(data="CIFAR100") is None
    assert stated(data="photographs") is None
    assert stated(weights="random") is None
    assert stated(shortcut="B") is None
    halves = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert stated(normalization=halves) is None
    assert stated_top1(load_baseline(torch.nn.Conv2d(3, 8, 3)), "CIFAR10", 10_000) is None


@pytest.mark.data("resnet20")
def test_published_weights_have_their_sources():
    assert stated(weights="published") == 91.73
    published = load_baseline("resnet20")
    assert stated_top1(published, "CIFAR100", 10_000) is None
    assert stated_top1(replace(published, normalization=None), "CIFAR10", 10_000) is None


CASES = [pytest.param(n, "published", marks=pytest.mark.data("CIFAR10", n)) for n in PUBLISHED]
CASES += [
    pytest.param(n, "embedded", marks=pytest.mark.data(read_card(n)["data"]))
    for n in embedded_names()
]


@pytest.mark.slow
@pytest.mark.parametrize(("network", "weights"), CASES)
def test_what_is_stated_is_what_is_measured(network, weights):
    baseline = load_baseline(network, weights=weights)
    data = read_card(network)["data"] if weights == "embedded" else PUBLISHED[network].data
    test_set = load_test_set(data, normalization=baseline.normalization)
    with fused(baseline.network):
        measured = top1(baseline.network, test_set)
    # Roundings differ from machine to machine: an image or two may change sides.
    assert measured == pytest.approx(stated_top1(baseline, data, len(test_set.images)), abs=0.03)
