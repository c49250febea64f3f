"""Layers that run in training only are cut along with what they read, or keep it whole."""

import numpy as np
import pytest
import torch
from networks_for_tests import Head, awaken, images, random_strategy, simple_problem
from torch import Tensor, nn
from torch.nn import functional as F

from lfgcl_env.networks import load_baseline
from lfgcl_env.networks.outputs import named_outputs
from lfgcl_env.pruning import load_pruned


class Auxiliary(nn.Module):
    """A second head in training."""

    def __init__(self, aux: nn.Module | None = None) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 6, 3, padding=1)
        self.aux = aux or nn.Sequential(
            nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Dropout(0.5), Head(4)
        )
        self.head = Head(6)

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        x = F.relu(self.a(x))
        y = self.head(F.relu(self.b(x)))
        return {"out": y, "aux": self.aux(x)} if self.training else y


class Picky(nn.Module):
    """A head that Torch-Pruning follows wrongly: it reads channels in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.flip(1)).mean((2, 3))


class FixedSize(nn.Module):
    """A head that fails with fewer channels than it was made for."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(8, 1, 1))
        self.conv = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x * self.scale).mean((2, 3))


class RandomInTraining(nn.Module):
    """A head with dropout that is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.dropout(x, training=self.training)).mean((2, 3))


class Failing(nn.Module):
    """A head that cannot run at all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 4, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3))


class Mean(nn.Module):
    """The features themselves as an output in training."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv(x).mean((2, 3)), x.mean((2, 3))], 1)


@pytest.mark.parametrize("aux", [None, RandomInTraining], ids=["modules", "functional dropout"])
def test_a_training_head_is_cut_along(aux, tmp_path):
    def build() -> nn.Module:
        return Auxiliary(aux() if aux else None)

    network = awaken(build())
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    problem = simple_problem(network, images(8), repair="least_squares")
    assert [group.name for group in problem.groups] == ["a", "b"]
    assert not network.training
    assert all(torch.equal(before[key], t) for key, t in network.state_dict().items())
    strategy = random_strategy(problem, 1)
    smaller = problem.compress(strategy)
    assert sum(p.numel() for p in smaller.parameters()) == problem.cost(strategy).params
    path = problem.save(tmp_path / "pruned", strategy, smaller)
    for trained in (smaller, load_pruned(path, build())):
        outputs = trained.train()(images(4))
        sum(output.sum() for output in outputs.values()).backward()
        assert all(p.grad is not None for p in trained.parameters())


def test_a_cut_training_head_gives_what_hiding_its_channels_gives():
    network = awaken(Auxiliary())
    problem = simple_problem(network, images(8))
    kept = problem.kept_channels([3, 6])
    smaller = problem.network.cut(kept)
    gone = np.setdiff1d(np.arange(8), kept[0])
    network.aux[1].weight.data[:, gone] = 0
    for module in (network.aux, smaller.aux):
        module.eval()
    x = F.relu(network.a(images(3)))
    cut = smaller.aux(F.relu(smaller.a(images(3))))
    assert torch.allclose(cut, network.aux(x), atol=1e-5)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (Picky, "aux, which runs in training only, changes otherwise than by hiding"),
        (FixedSize, "aux, which runs in training only, fails without its channels"),
        (Mean, "its channels are the network's output in training, where aux runs too"),
    ],
)
def test_channels_that_a_training_head_needs_whole_are_excluded_and_name_it(head, reason):
    problem = simple_problem(awaken(Auxiliary(head())), images(8))
    assert [group.name for group in problem.groups] == ["b"]
    assert {e.name: e.reason for e in problem.excluded}["a"].startswith(reason)
    problem.compress([2]).train()(images(4))


@pytest.mark.parametrize("size", [32, 80])
def test_what_a_head_reads_stays_whole_where_the_head_fails_on_small_images(size):
    network = Auxiliary(Failing()).eval()
    problem = simple_problem(network, images(4, size))
    if size < 64:
        assert [group.name for group in problem.groups] == ["b"]
        why = {exclusion.name: exclusion.reason for exclusion in problem.excluded}["a"]
        assert why.startswith("aux reads its channels in training, where it fails (RuntimeError: ")
    smaller = problem.compress(np.maximum(1, problem.channels // 2))
    assert smaller.train()(images(4, 80))["aux"].shape == (4, 4)


@pytest.mark.slow
def test_googlenet_with_auxiliary_heads_trains_after_the_cut():
    baseline = load_baseline(
        "torchvision:googlenet",
        "random",
        input_shape=(3, 64, 64),
        aux_logits=True,
        init_weights=False,
    )
    awaken(baseline.network)
    problem = simple_problem(baseline, images(4, 64), budget=0.5)
    heads = {m.layer for group in problem.groups for m in group.members if m.layer[:3] == "aux"}
    assert heads == {"aux1.conv.conv", "aux2.conv.conv"}
    smaller = problem.compress(problem.project(np.full(len(problem.groups), 0.5)))
    outputs = named_outputs(smaller.train()(images(4, 64))).values()
    assert [tuple(output.shape) for output in outputs] == [(4, 1000)] * 3


def test_channels_that_a_head_reads_in_bundles_stay_whole_and_the_reason_is_said():
    shuffled = nn.Sequential(nn.PixelShuffle(2), nn.Conv2d(2, 4, 1), Head(4))
    problem = simple_problem(awaken(Auxiliary(shuffled)), images(8, 16), budget=1.0)
    reasons = {item.name: item.reason for item in problem.excluded}
    assert "its channels are tied otherwise on the way to aux.1" in reasons["a"]
    assert [group.name for group in problem.groups] == ["b"]
