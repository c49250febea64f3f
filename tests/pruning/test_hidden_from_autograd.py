"""Groups are found where networks hide what they compute from autograd, or rewrite it in place."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from networks_for_tests import drawn, hide, images
from torch import Tensor, nn

from lfgcl_env.networks import load_baseline
from lfgcl_env.networks.outputs import named_outputs
from lfgcl_env.networks.recording import Recorded, recording
from lfgcl_env.pruning import PrunableNetwork, PruningProblem
from lfgcl_env.pruning.moments.output_weights import output_weights
from lfgcl_env.pruning.score.heads import find_heads
from lfgcl_env.pruning.structure.tracing import find_groups


def convs(*channels: int) -> nn.Sequential:
    """Convolutions of 3 x 3 with ReLUs in place."""
    layers: list[nn.Module] = []
    for into, out in pairwise(channels):
        layers += [nn.Conv2d(into, out, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class Probed(nn.Module):
    """A backbone that is not trained, under a head that is."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = convs(3, 8, 12).requires_grad_(False)
        self.head = nn.Sequential(nn.Linear(12, 10), nn.ReLU(inplace=True), nn.Linear(10, 5))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            found = self.backbone(x)
        return self.head(found.mean((2, 3)))


class Deployed(nn.Module):
    """A network whose forward is never trained."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.fc = convs(3, 8, 12), nn.Linear(12, 5)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layers(x).mean((2, 3)))


class Spared(nn.Module):
    """A head that does not train what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.more = convs(3, 8, 12), convs(12, 8)
        self.fc, self.other = nn.Linear(8, 5), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.layers(x)
        aside = self.other(x.detach().mean((2, 3)))
        return self.fc(self.more(x).mean((2, 3))), aside


class OfData(Spared):
    """The same by the attribute data."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.layers(x)
        aside = self.other(x.data.mean((2, 3)))
        return self.fc(self.more(x).mean((2, 3))), aside


class Words(nn.Module):
    """Linear layers of sequences, whose outputs are views that ReLUs change in place."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(32, 12), nn.ReLU(inplace=True), nn.Linear(12, 8), nn.ReLU(inplace=True))
        )
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layers(x.flatten(1, 2)).mean(1))


class Painting(nn.Module):
    """InstanceNorms, whose outputs are views too, as in networks that translate images."""

    def __init__(self, affine: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.n, self.m = (nn.InstanceNorm2d(size, affine=affine) for size in (8, 12))
        self.c = nn.Conv2d(12, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.n(self.a(x)).relu_()
        return self.c(nn.functional.leaky_relu(self.m(self.b(x)), 0.2, inplace=True))


GROUPS = {
    "backbone": (Probed, ["backbone.0", "backbone.2", "head.0"]),
    "whole": (Deployed, ["layers.0", "layers.2"]),
    "detached": (Spared, ["layers.0", "layers.2", "more.0"]),
    "data": (OfData, ["layers.0", "layers.2", "more.0"]),
    "sequences": (Words, ["layers.0", "layers.2"]),
    "instance norms": (lambda: Painting(affine=False), ["a", "b"]),
    "affine instance norms": (lambda: Painting(affine=True), ["a", "b"]),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_all_groups_are_found_and_cut_exactly(kind):
    build, names = GROUPS[kind]
    torch.manual_seed(0)
    module = build().eval()
    frozen = [name for name, p in module.named_parameters() if not p.requires_grad]
    network = PrunableNetwork(load_baseline(module))
    assert [group.name for group in network.groups] == names
    kept = drawn(network, network.channels // 2)
    cut = network.cut(kept)
    with torch.no_grad():
        found, expected = (named_outputs(one(images())) for one in (cut, hide(network, kept)))
    for place, output in expected.items():
        torch.testing.assert_close(found[place], output, rtol=1e-4, atol=1e-5)
    sizes = [norm.num_features for norm in cut.modules() if isinstance(norm, nn.InstanceNorm2d)]
    assert sizes == [4, 6][: len(sizes)]
    assert [name for name, p in module.named_parameters() if not p.requires_grad] == frozen


@pytest.mark.parametrize("kind", ["backbone", "whole", "detached"])
def test_such_networks_are_ordered_scored_and_repaired(kind):
    torch.manual_seed(0)
    module = GROUPS[kind][0]().eval()
    problem = PruningProblem(module, images(32), budget=0.5)
    keep = problem.project(np.full(len(problem.groups), 0.5))
    _, evaluation = problem.finish(keep, images(32, seed=1))
    assert evaluation.similarity >= problem.score_network(problem.cut(keep), keep)
    assert evaluation.macs <= 0.5 * problem.baseline_cost.macs


def test_what_feeds_an_output_under_no_grad_is_compared():
    class Forked(Deployed):
        def __init__(self) -> None:
            super().__init__()
            self.boxes = nn.Linear(12, 4)

        @torch.no_grad()
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.layers(x).mean((2, 3))
            return self.boxes(x), self.fc(x)

    baseline = load_baseline(Forked().eval())
    heads = find_heads(baseline, PrunableNetwork(baseline).layers)
    assert [head.layer for head in heads] == ["boxes", "fc"]


class Grid(nn.Module):
    """Anchors at two depths, whose numbers are split and joined again, as in a head of YOLO."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.deeper = convs(3, 8), convs(8, 8)
        self.heads = nn.ModuleList(nn.Conv2d(8, 27, 1) for _ in range(2))
        self.anchors = torch.rand(2, 1, 3, 1, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.layers(x)
        joined = []
        for place, maps in enumerate((shallow, self.deeper(shallow))):
            found = self.heads[place](maps[:, :, ::8, ::8])
            images, _, height, width = found.shape
            found = found.view(images, 3, 9, height, width).permute(0, 1, 3, 4, 2).sigmoid()
            centre = (found[..., 0:2] * 2 - 0.5 + self.anchors[place]) * 4
            size = (found[..., 2:4] * 2) ** 2 * self.anchors[place].to(found)
            found = torch.cat([centre, size, found[..., 4:]], -1)
            joined.append(found.view(images, -1, 9))
        return torch.cat(joined, 1)


def test_heads_that_split_and_join_their_numbers_are_followed_to_an_end():
    found = find_groups(Grid().eval(), images(2))
    assert [group.name for group in found.groups] == ["layers.0", "deeper.0"]


class Numbers(nn.Module):
    """Tells autograd nothing of its second half, by way of NumPy."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.fc = convs(3, 8, 12), nn.Linear(12, 5)
        self.seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.layers(x).mean((2, 3))
        return self.fc(torch.from_numpy(self.seen.numpy()))


def test_tracing_leaves_no_trace_in_the_network():
    network = Numbers().eval().requires_grad_(False)
    found = find_groups(network, images(2))
    assert "Torch-Pruning cannot trace it" in found.excluded[0].reason
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert network.seen is None or network.seen.is_leaf


class Writing(Deployed):
    """Writes into a parameter, which autograd would not allow."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        self.fc.weight.clamp_(-1, 1)
        with torch.enable_grad():
            return self.fc(self.layers(x).mean((2, 3)))


def test_a_network_that_writes_into_parameters_is_run_as_it_is():
    network = Writing().eval()
    assert not isinstance(recording(network, images(1)), Recorded)
    assert [group.name for group in find_groups(network, images(2)).groups] == [
        "layers.0",
        "layers.2",
    ]


@pytest.mark.parametrize("frozen", [False, True])
def test_what_writes_into_parameters_is_ordered_and_compared(frozen):
    network = Writing().eval().requires_grad_(not frozen)
    problem = PruningProblem(network, images(8), budget=0.7)
    assert np.isfinite(problem.evaluate(problem.project([0.5] * len(problem.groups))).similarity)


class Rounded(nn.Module):
    """Rounds what it gets, and lets gradients through as if it did not."""

    def forward(self, x: Tensor) -> Tensor:
        return x + ((8 * x).round() / 8 - x).detach()


def test_a_straight_through_estimator_stays_one():
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), Rounded()]
    layers += [nn.Conv2d(8, 6, 3, padding=1), nn.ReLU(), Rounded(), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(6 * 1024, 5)).eval()
    problem = PruningProblem(network, images(8))
    assert [(group.name, group.coupled) for group in problem.groups] == [("0", False), ("3", False)]
    weights = output_weights(network, ["0", "3", "7"], images(8))
    assert all(bool(weight.any()) for weight in weights.values())
