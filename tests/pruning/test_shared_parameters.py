"""Parameters that several modules share, and parameters that are not to be trained."""

import pytest
import torch
from networks_for_tests import Head, awaken, images, random_strategy, simple_problem
from torch import Tensor, nn
from torch.nn import functional as F

from lfgcl_env.pruning import load_pruned
from lfgcl_env.pruning.structure.layers import count_macs


class Tied(nn.Module):
    """Two convolutions with one weight, between others."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.a = nn.Conv2d(8, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.b.weight = self.a.weight
        self.last = nn.Conv2d(8, 6, 3, padding=1)
        self.c = nn.Conv2d(6, 6, 3, padding=1)
        self.d = nn.Conv2d(6, 6, 3, padding=1)
        self.d.weight = self.c.weight
        self.head = Head(6)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.a, self.b, self.last, self.c, self.d):
            x = F.relu(layer(x))
        return self.head(x)


class LateTie(Tied):
    """A weight that is shared behind a layer that can be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Conv2d(3, 12, 1)
        self.first = nn.Conv2d(12, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.relu(self.widen(x)))


def params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("repair", ["none", "least_squares", "sequential"])
def test_layers_with_a_shared_weight_stay_whole_and_shared(repair, tmp_path):
    network = awaken(LateTie())
    problem = simple_problem(network, images(8), repair=repair, scope="all")
    assert [group.name for group in problem.groups] == ["widen"]
    why = {exclusion.name: exclusion.reason for exclusion in problem.excluded}
    assert why["first"] == "a shares its weight with b"
    assert why["last"] == "c shares its weight with d"
    assert problem.baseline_cost.params == params(network)
    smaller = problem.compress([5])
    finished, _ = problem.finish([5], images(8))
    path = problem.save(tmp_path / "pruned", [5], smaller)
    for cut in (smaller, load_pruned(path, LateTie()), finished):
        assert cut.a.weight is cut.b.weight
        assert torch.equal(cut.a.weight, network.a.weight)
        assert params(cut) == problem.cost([5]).params
        assert count_macs(cut, images(1)) == problem.cost([5]).macs
    with torch.no_grad():
        assert torch.equal(load_pruned(path, LateTie())(images(3)), smaller(images(3)))


def test_weights_that_were_untied_after_the_cut_come_back_untied(tmp_path):
    problem = simple_problem(awaken(LateTie()), images(8), scope="all")
    smaller = problem.compress([5])
    smaller.b.weight = nn.Parameter(smaller.b.weight.detach() * 2)
    loaded = load_pruned(problem.save(tmp_path / "pruned", [5], smaller), LateTie())
    assert torch.equal(loaded.b.weight, 2 * loaded.a.weight)


@pytest.mark.parametrize("min_channels", [1, 0])
def test_frozen_parameters_stay_frozen(min_channels, tmp_path):
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), Head(6)
        )

    network = awaken(build())
    network[0].requires_grad_(False)
    network[1].weight.requires_grad_(False)
    problem = simple_problem(network, images(), min_channels=min_channels)
    strategy = random_strategy(problem, 0)
    smaller = problem.compress(strategy)
    frozen = {name: p.requires_grad for name, p in network.named_parameters()}
    assert {name: p.requires_grad for name, p in smaller.named_parameters()} == frozen
    loaded = load_pruned(problem.save(tmp_path / "one", strategy, smaller), build())
    assert {name: p.requires_grad for name, p in loaded.named_parameters()} == frozen
    # As the network had it when it was saved, whatever the baseline had.
    smaller.requires_grad_(True)
    smaller[3].bias.requires_grad_(False)
    loaded = load_pruned(problem.save(tmp_path / "two", strategy, smaller), build())
    assert [n for n, p in loaded.named_parameters() if not p.requires_grad] == ["3.bias"]
