"""Transposed convolutions are cut on both sides, counted, refitted and saved like all layers."""

import numpy as np
import pytest
import torch
from networks_for_tests import (
    Head,
    awaken,
    check_exactness,
    drawn,
    hidden,
    images,
    random_strategy,
    simple_problem,
)
from torch import Tensor, nn
from unusual_networks import noise

from lfgcl_env.pruning import PruningProblem, load_pruned
from lfgcl_env.pruning.criteria.criterion import CRITERIA
from lfgcl_env.pruning.structure.layers import count_macs


class UNet(nn.Module):
    """Down twice and up twice; skip connections are concatenated on one level, added on the other.

    Args:
        axes: 1 for sequences, 2 for maps, 3 for volumes.
        overlapping: whether the taps of transposed convolutions meet.
    """

    def __init__(self, axes: int = 2, *, overlapping: bool = False) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        up = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[axes - 1]
        norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[axes - 1]
        wide = {"kernel_size": 4, "padding": 1} if overlapping else {"kernel_size": 2}
        self.enter = nn.Sequential(conv(3, 8, 3, padding=1), norm(8), nn.ReLU())
        self.down1 = nn.Sequential(conv(8, 10, 3, stride=2, padding=1), norm(10), nn.ReLU())
        self.down2 = nn.Sequential(conv(10, 12, 3, stride=2, padding=1), nn.ReLU())
        self.up2 = nn.Sequential(up(12, 10, stride=2, **wide), nn.ReLU())
        self.up1 = nn.Sequential(up(10, 6, stride=2, bias=False, **wide), norm(6), nn.ReLU())
        self.join = nn.Sequential(conv(14, 8, 3, padding=1), nn.ReLU(), conv(8, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        first = self.enter(x)
        second = self.down1(first)
        x = second + self.up2(self.down2(second))
        return self.join(torch.cat([first, self.up1(x)], 1))


def unet(axes: int = 2, *, overlapping: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return UNet(axes, overlapping=overlapping).eval()


def rows(count: int, axes: int, seed: int = 0) -> Tensor:
    return noise(count, 3, *[8] * axes, seed=seed)


SHAPES = [(1, False), (2, False), (3, False), (1, True), (2, True), (3, True)]


@pytest.mark.parametrize("scope", ["inner", "all"])
@pytest.mark.parametrize(("axes", "overlapping"), SHAPES)
def test_cut_unets_give_what_hiding_gives_and_cost_what_pytorch_counts(axes, overlapping, scope):
    problem = simple_problem(unet(axes, overlapping=overlapping), rows(4, axes), scope=scope)
    network, inputs = problem.network, rows(3, axes, seed=3)
    assert {"down2.0", "up1.0"} <= {group.name for group in network.groups}
    coupled = [group for group in network.groups if "up2.0" in group.layers("out")]
    assert len(coupled) == (scope == "all")
    for seed in range(3):
        keep = random_strategy(problem, seed)
        kept = drawn(network, keep)
        cut = network.cut(kept)
        with torch.no_grad():
            found, expected = cut(inputs), hidden(network, kept, inputs)
        assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
        assert network.cost(keep).macs == count_macs(cut, inputs)
        assert network.cost(keep).params == sum(p.numel() for p in cut.parameters())


def test_the_attributes_of_cut_layers_are_updated():
    problem = simple_problem(unet(), rows(4, 2), scope="all")
    keep = np.maximum(1, problem.channels // 2)
    up = problem.compress(keep).up1[0]
    assert tuple(up.weight.shape) == (up.in_channels, up.out_channels, 2, 2) == (5, 3, 2, 2)


@pytest.mark.parametrize("overlapping", [False, True])
def test_the_closed_form_refits_transposed_consumers_and_helps(overlapping):
    network = unet(overlapping=overlapping)
    inputs = rows(64, 2)
    scores = {}
    for repair in ("none", "least_squares"):
        problem = PruningProblem(
            network, inputs, criterion="l1", repair=repair, similarity="mse", features="output"
        )
        keep = problem.channels.copy()
        keep[[group.name for group in problem.groups].index("down2.0")] = 6
        scores[repair] = problem.evaluate(keep).similarity
        compressed = problem.compress(keep)
    assert scores["least_squares"] > scores["none"]
    assert torch.equal(compressed.up2[0].bias, network.up2[0].bias)
    assert torch.equal(problem.compress(problem.channels)(inputs), network(inputs))


def test_a_refit_of_what_can_be_made_up_for_is_exact():
    """A channel twice: one of both can go, and the taps of the other take over."""
    network = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()),
        *(nn.ConvTranspose2d(4, 5, 2, stride=2), nn.ReLU(), nn.Conv2d(5, 3, 1)),
    ).eval()
    for tensor in (network[0].weight.data, network[0].bias.data):
        tensor[3] = tensor[2]
    inputs = rows(32, 2)
    problem = PruningProblem(network, inputs, criterion="obs", features="output", similarity="mse")
    keep = [3, *problem.channels[1:]]
    assert set(problem.kept_channels(keep)[0]) & {2, 3} != {2, 3}
    with torch.no_grad():
        found, expected = problem.compress(keep)(inputs), network(inputs)
    assert float((found - expected).abs().max()) < 2e-3 * float(expected.abs().max())


@pytest.mark.parametrize("criterion", sorted(CRITERIA.keys() - {"bn_scale"}))
def test_every_criterion_orders_their_channels(criterion):
    problem = PruningProblem(unet(), rows(8, 2), criterion=criterion, scope="all", budget=0.6)
    keep = problem.project(np.full(len(problem.groups), 0.5))
    assert 0 < problem.evaluate(keep).similarity < 1


@pytest.mark.parametrize("repair", ["none", "least_squares", "sequential"])
def test_a_delivered_unet_comes_back(repair, tmp_path):
    problem = PruningProblem(unet(), rows(16, 2), repair=repair, scope="all", budget=0.5)
    keep = problem.project(np.full(len(problem.groups), 0.5))
    delivered, evaluation = problem.finish(keep, rows(32, 2, seed=1))
    assert 0 < evaluation.similarity <= 1
    loaded = load_pruned(problem.save(tmp_path / "pruned", keep, delivered), UNet)
    with torch.no_grad():
        assert torch.equal(loaded(rows(4, 2)), delivered(rows(4, 2)))


def test_another_architecture_with_the_sides_swapped_is_refused(tmp_path):
    def build(out: int = 6) -> nn.Module:
        between = nn.ConvTranspose2d(8, out, 2, stride=2)
        return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), between, nn.ReLU(), Head(out)).eval()

    problem = simple_problem(awaken(build()), images(8))
    path = problem.save(tmp_path / "pruned", [3, 5])
    with torch.no_grad():
        assert torch.equal(load_pruned(path, build)(images()), problem.compress([3, 5])(images()))
    with pytest.raises(ValueError, match="not cut from"):
        load_pruned(path, build(4))


def test_they_keep_a_channel_where_whole_groups_may_go():
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 6, 3, padding=1)
            self.inner = nn.Conv2d(6, 4, 3, stride=2, padding=1)
            self.outer = nn.ConvTranspose2d(4, 6, 2, stride=2)
            self.head = Head(6)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).relu()
            return self.head(x + self.outer(self.inner(x).relu()))

    problem = simple_problem(awaken(Branch()), images(8), min_channels=0)
    assert problem.network.lowest.tolist() == [1]


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("groups", [3, 6])
def test_those_with_groups_lose_whole_groups(axes, groups):
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    up = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[axes - 1]
    network = nn.Sequential(
        *(conv(3, 8, 1), nn.ReLU(), conv(8, 6, 1), nn.ReLU()),
        *(up(6, 6, 2, 2, groups=groups), nn.ReLU(), conv(6, 4, 1)),
    ).eval()
    problem = simple_problem(network, rows(4, axes))
    assert [(group.name, group.channels) for group in problem.groups] == [("0", 8), ("2", groups)]
    layer = problem.compress([8, 2])[4]
    size = 12 // groups
    assert (layer.in_channels, layer.out_channels, layer.groups) == (size, size, 2)
    assert layer.weight.shape == (size, 6 // groups, *[2] * axes)
    strategies = [random_strategy(problem, seed) for seed in range(3)]
    check_exactness(problem.network, strategies, inputs=rows(3, axes, seed=3))
