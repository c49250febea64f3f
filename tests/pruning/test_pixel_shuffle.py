"""Channels in front of a pixel shuffle go in bundles: as many as make one channel behind it."""

import numpy as np
import pytest
import torch
from networks_for_tests import awaken, check_exactness, images, random_strategy
from torch import Tensor, nn
from torch.nn import functional as F

from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PrunableNetwork, PruningProblem, load_pruned
from lfgcl_env.pruning.criteria.criterion import CRITERIA
from lfgcl_env.pruning.repair.interface import REPAIRS
from lfgcl_env.pruning.repair.profiles import SequentialOptions


class SuperResolution(nn.Module):
    """Images twice enlarged between layers, and twice at the end, as ESPCN and EDSR do.

    Args:
        way: what happens around the first shuffle.
    """

    def __init__(self, way: str = "plain") -> None:
        super().__init__()
        self.way = way
        self.enter = nn.Conv2d(3, 10, 5, padding=2)
        self.widen = nn.Conv2d(10, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32 if way == "norm before" else 8)
        self.shuffle = nn.PixelShuffle(2)
        self.skip = nn.Conv2d(3, 8, 1)
        self.fine = nn.Conv2d(16 if way == "concatenated" else 8, 6, 3, padding=1)
        self.leave = nn.Conv2d(6, 3 * 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.widen(self.enter(x).relu())
        if self.way == "norm before":
            y = self.norm(y)
        y = F.pixel_shuffle(y, 2) if self.way == "function" else self.shuffle(y)
        if self.way == "norm behind":
            y = self.norm(y)
        if self.way in ("concatenated", "added"):
            other = F.interpolate(self.skip(x), scale_factor=2)
            y = torch.cat([other, y], 1) if self.way == "concatenated" else y + other
        return self.shuffle(self.leave(self.fine(y.relu()).relu()))


class Unshuffling(nn.Module):
    """Folds pixels into channels and unfolds them again behind a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.inner = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(24, 20, 3, padding=1)
        self.fold, self.unfold = nn.PixelUnshuffle(2), nn.PixelShuffle(2)
        self.leave = nn.Conv2d(5, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(self.fold(self.enter(x).relu()))
        return self.leave(self.unfold(x).relu())


WAYS = ["plain", "function", "norm before", "norm behind", "concatenated", "added"]


def built(way: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return awaken(Unshuffling() if way == "unshuffled" else SuperResolution(way))


def prunable(way: str, **arguments: object) -> PrunableNetwork:
    baseline = load_baseline(built(way), input_shape=(3, 8, 8))
    return PrunableNetwork(baseline, scope="all", **arguments)


@pytest.mark.parametrize("min_channels", [1, 0])
@pytest.mark.parametrize("way", [*WAYS, "unshuffled"])
def test_cut_is_hidden_and_costs_are_counted(way, min_channels):
    network = prunable(way, min_channels=min_channels)
    found = {group.name: (group.channels, group.bundle) for group in network.groups}
    if way == "unshuffled":
        assert found == {"enter": (6, 1), "inner": (5, 4)}
    else:
        assert found["widen"] == (8, 4)
        assert found["fine"] == (6, 1)
    assert "leave" in {exclusion.name for exclusion in network.excluded}
    draws = (np.random.default_rng(seed) for seed in range(3))
    check_exactness(network, [d.integers(network.lowest, network.channels + 1) for d in draws])
    check_exactness(network, [network.lowest])


@pytest.mark.parametrize("repair", sorted(set(REPAIRS) - {"batchnorm"}))
@pytest.mark.parametrize("way", ["plain", "norm behind", "concatenated"])
def test_networks_are_repaired_saved_and_loaded(way, repair, tmp_path):
    problem = PruningProblem(built(way), images(32, 8), repair=repair, scope="all", budget=0.6)
    assert problem.evaluate(problem.channels).similarity == pytest.approx(1, abs=1e-5)
    keep = random_strategy(problem, 1)
    smaller = problem.compress(keep)
    score = problem.evaluate(keep).similarity
    assert problem.score_network(smaller, keep) == pytest.approx(score, abs=1e-4)
    loaded = load_pruned(problem.save(tmp_path / "pruned", keep, smaller), built(way))
    with torch.no_grad():
        assert torch.equal(loaded(images(3, 8)), smaller(images(3, 8)))
    assert problem.kept_channels(keep)[1].max() < 8
    finished, _ = problem.finish(keep, images(64, 8, seed=1), SequentialOptions(rows=4096))
    judge = problem.judge(images(32, 8, seed=2))
    assert judge(finished) >= judge(problem.cut(keep))
    smaller.train()(images(2, 8)).mean().backward()


@pytest.mark.parametrize("criterion", sorted(set(CRITERIA) - {"bn_scale"}))
def test_bundles_are_ordered_by_every_criterion(criterion):
    problem = PruningProblem(built("plain"), images(16, 8), criterion=criterion, repair="none")
    keep = np.maximum(1, problem.channels // 2)
    assert problem.evaluate(keep).similarity < 1


def test_a_bundle_that_feeds_nothing_goes_first():
    network = built("plain")
    with torch.no_grad():
        network.fine.weight[:, 5] = 0  # nothing reads what channels 20 to 23 make
    problem = PruningProblem(network, images(16, 8))
    place = [group.name for group in problem.groups].index("widen")
    keep = problem.channels.copy()
    keep[place] -= 1
    assert problem.kept_channels(keep)[place].tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert problem.compress(keep).widen.out_channels == 28


def test_limits_count_the_channels_of_the_layer_and_protection_names_it():
    network = prunable("plain", min_channels={"widen": 12}, max_prune_ratio={"fine": 0.5})
    lowest = dict(zip([g.name for g in network.groups], network.rounding.fewest, strict=True))
    assert lowest == {"enter": 1, "widen": 3, "fine": 3}
    kept = prunable("plain", protect=["widen"])
    assert "widen" not in {group.name for group in kept.groups}
