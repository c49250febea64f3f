"""Parameters that several modules share, and parameters that are not to be trained."""

import numpy as np
import pytest
import torch
from networks_for_tests import Head, awaken, images, random_strategy, simple_problem
from torch import Tensor, nn
from torch.nn import functional as F

from lfgcl_env.pruning import REPAIRS, load_pruned
from lfgcl_env.pruning.repair.profiles import SequentialOptions
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


class Frozen(nn.Module):
    """A network of which a user trains a part: whole layers, single tensors, one behind a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.second, self.third = nn.Conv2d(8, 6, 3, bias=False), nn.Conv2d(6, 8, 3)
        self.patches = nn.Conv2d(8, 12, 2, stride=2)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.up, self.down = nn.Linear(12, 16), nn.Linear(16, 12)
        self.head = nn.Linear(12, 5)
        frozen = (self.first, self.third.bias, self.norm.weight, self.attention.in_proj_weight)
        for one in (*frozen, self.attention.out_proj.bias, self.up, self.down.weight):
            one.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.third(F.relu(self.second(F.relu(self.norm(self.first(x)))))))
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head((x + self.down(F.gelu(self.up(x)))).mean(1))


def frozen_in(network: nn.Module) -> set[str]:
    return {name for name, p in network.named_parameters() if not p.requires_grad}


FROZEN = {
    *("first.weight", "first.bias", "norm.weight", "third.bias", "attention.out_proj.bias"),
    *("up.weight", "up.bias", "down.weight"),
    *(f"attention.{part}.weight" for part in "qkv"),
}
"""In a pruned network, whose queries, keys and values have layers of their own."""


@pytest.mark.parametrize("repair", sorted(REPAIRS))
@pytest.mark.parametrize("min_channels", [1, 0])
@pytest.mark.parametrize("kind", ["scored", "thorough", "handed over", "cut"])
def test_frozen_parameters_stay_frozen(kind, repair, min_channels, tmp_path):
    problem = simple_problem(
        awaken(Frozen()), images(16, 16), min_channels=min_channels, repair=repair
    )
    strategy = np.minimum(problem.channels // 2, 3)
    if min_channels == 0:
        strategy[problem.lowest == 0] = 0
    options = SequentialOptions(rows=4096)
    network = {
        "scored": lambda: problem.compress(strategy),
        "thorough": lambda: problem.repair_all([strategy], images(16, 16, 1), options)[0],
        "handed over": lambda: problem.finish(strategy, images(16, 16, 1), options)[0],
        "cut": lambda: problem.cut(strategy),
    }[kind]()
    there = dict(network.named_parameters()).keys()
    assert ("up.weight" in there) == (min_channels == 1)
    assert frozen_in(network) == FROZEN & there
    loaded = load_pruned(problem.save(tmp_path / "one", strategy, network), Frozen())
    assert frozen_in(loaded) == FROZEN & there
    before = {name: p.detach().clone() for name, p in loaded.named_parameters()}
    optimizer = torch.optim.SGD(loaded.train().parameters(), lr=0.1)
    loaded(images(4, 16, 2)).square().sum().backward()
    optimizer.step()
    changed = {name for name, p in loaded.named_parameters() if not torch.equal(p, before[name])}
    assert changed.isdisjoint(FROZEN)
    assert {"second.weight", "head.weight"} <= changed


@pytest.mark.parametrize("min_channels", [1, 0])
def test_frozen_parameters_are_frozen_as_the_network_was_saved(min_channels, tmp_path):
    problem = simple_problem(awaken(Frozen()), images(4, 16), min_channels=min_channels)
    strategy = random_strategy(problem, 0)
    smaller = problem.compress(strategy)
    # Whatever the baseline had.
    smaller.requires_grad_(True)
    smaller.third.bias.requires_grad_(False)
    loaded = load_pruned(problem.save(tmp_path / "two", strategy, smaller), Frozen())
    assert frozen_in(loaded) == {"third.bias"}
