"""Channels of one layer that meet, as the halves of a gated convolution, go together."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from networks_for_tests import check_exactness, drawn, images
from torch import Tensor, nn
from torch_pruning.dependency import graph as graphs

from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PrunableNetwork, PruningProblem, load_pruned
from lfgcl_env.pruning.inputs import load_module


class Gated(nn.Module):
    """WaveNet's unit: one half opens and closes the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gated = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 24, 3, padding=1)
        self.norm, self.last = nn.BatchNorm2d(24), nn.Conv2d(12, 8, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        signal, gate = self.norm(self.gated(self.first(x).relu())).chunk(2, 1)
        x = self.last(torch.tanh(signal) * torch.sigmoid(gate)).relu()
        return self.fc(x.mean((2, 3)))


class Halves(Gated):
    """The larger of two halves."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.maximum(*self.gated(self.first(x).relu()).chunk(2, 1))
        return self.fc(self.last(x).relu().mean((2, 3)))


class Glu(Gated):
    """The same as WaveNet's unit without tanh, by PyTorch's operation."""

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.glu(self.norm(self.gated(self.first(x).relu())), dim=1)
        return self.fc(self.last(x).relu().mean((2, 3)))


class Views(Gated):
    """The larger of two neighbours, by a view."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.gated(self.first(x).relu())
        images, channels, height, width = x.shape
        x = x.view(images, channels // 2, 2, height, width).amax(2)
        return self.fc(self.last(x).relu().mean((2, 3)))


@pytest.mark.parametrize("build", [Gated, Halves, Glu, Views])
def test_halves_are_pruned_in_pairs(build):
    torch.manual_seed(0)
    network = PrunableNetwork(load_baseline(build().eval()))
    groups = {group.name: (group.channels, group.bundle) for group in network.groups}
    assert groups == {"first": (8, 1), "gated": (12, 2), "last": (8, 1)}
    check_exactness(network, [np.array([8, 5, 8]), np.array([3, 1, 4])])


class Conditioned(nn.Module):
    """FiLM: a linear layer gives every channel of a convolution its scale and its shift."""

    def __init__(self) -> None:
        super().__init__()
        self.film = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 16))
        self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.film(condition)[..., None, None].chunk(2, 1)
        x = (self.conv(image) * (1 + scale) + shift).relu()
        return self.fc(x.mean((2, 3)))


def test_scales_and_shifts_go_with_their_channel():
    torch.manual_seed(0)
    module = Conditioned().eval()
    inputs = {"image": images(6, 12), "condition": torch.randn(6, 4)}
    network = PrunableNetwork(load_module(module, inputs), scope="all")
    found = {group.name: (group.channels, group.bundle) for group in network.groups}
    assert found == {"film.0": (10, 1), "film.2": (8, 2)}
    kept = drawn(network, np.array([7, 3]))
    whole = copy.deepcopy(module)
    with torch.no_grad():
        whole.film[2].weight[:, np.setdiff1d(np.arange(10), kept[0])] = 0
        whole.fc.weight[:, np.setdiff1d(np.arange(8), kept[1])] = 0
        expected = whole(**inputs)
        found = network.cut(kept)(network.baseline.packing.pack(inputs))
    torch.testing.assert_close(found, expected)


def test_pairs_are_repaired_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    module = Gated().eval()
    problem = PruningProblem(module, images(32, 12), budget=0.5)
    keep = problem.project(np.full(3, 0.5))
    network, evaluation = problem.finish(keep, images(32, 12, seed=1))
    assert evaluation.similarity > problem.score_network(problem.cut(keep), keep)
    assert network.gated.out_channels == 2 * keep[1] == 2 * network.last.in_channels
    problem.save(tmp_path / "pruned.safetensors", keep, network)
    loaded = load_pruned(tmp_path / "pruned.safetensors", Gated())
    assert torch.equal(loaded(images(4, 12)), network(images(4, 12)))


class Words(nn.Module):
    """A GLU over the features of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(32, 16), nn.GLU(), nn.Linear(8, 6), nn.ReLU())
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layers(x.flatten(1, 2)).mean(1))


def test_halves_of_features_are_pruned_in_pairs():
    torch.manual_seed(0)
    network = PrunableNetwork(load_baseline(Words().eval()))
    found = {group.name: (group.channels, group.bundle) for group in network.groups}
    assert found == {"layers.0": (8, 2), "layers.2": (6, 1)}
    check_exactness(network, [np.array([3, 6]), np.array([5, 2])])


def test_halves_of_positions_leave_channels_alone():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.GLU(), nn.Conv2d(8, 5, 3), nn.Flatten()
    )
    found = PrunableNetwork(load_baseline(network.eval(), input_shape=(3, 8, 8))).groups
    assert [(group.name, group.channels, group.bundle) for group in found] == [("0", 8, 1)]


@pytest.mark.usefixtures("frequent_switches")
def test_threads_find_the_groups_that_each_would_alone():
    torch.manual_seed(0)
    networks = [load_baseline(Gated().eval()) for _ in range(6)]
    usual = graphs.Group
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(PrunableNetwork, networks))
    alone = PrunableNetwork(networks[0])
    sizes = [(group.name, group.channels, group.bundle) for group in alone.groups]
    assert all([(g.name, g.channels, g.bundle) for g in one.groups] == sizes for one in found)
    assert graphs.Group is usual
