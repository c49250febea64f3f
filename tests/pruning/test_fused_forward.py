"""A fused forward pass gives the network's own outputs, whatever is read or replaced."""

import copy
import types

import pytest
import torch
from networks_for_tests import FAMILIES, Residual, awake_baseline, awaken, images, plain
from torch import nn

from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.moments.patches import gram
from lfgcl_env.pruning.repair.fused_forward import FusedForward, fused

CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_outputs_are_the_networks_own(family):
    network = copy.deepcopy(awake_baseline(family).network).double().eval()
    batch = images(3).double()
    expected = network(batch)
    kept = batch.clone()
    with fused(network):
        torch.testing.assert_close(network(batch), expected, **CLOSE)
        torch.testing.assert_close(network(batch), expected, **CLOSE)
    assert torch.equal(batch, kept)
    assert torch.equal(network(batch), expected)


@torch.no_grad()
def test_weights_are_those_at_the_beginning_of_the_block():
    network = plain().eval()
    forward = FusedForward(network)
    for _ in range(2):
        nn.init.normal_(network[3].weight)
        nn.init.uniform_(network[4].running_var, 0.5, 2)
        expected = network(images())
        with forward.running():
            torch.testing.assert_close(network(images()), expected, **CLOSE)


@pytest.mark.parametrize(
    "read", ["conv1", "bn1", "layer1.0.conv2", "layer1.0.bn2", "layer1", "layer2.0", "linear", ""]
)
@torch.no_grad()
def test_hooks_see_what_they_see_of_the_network(read):
    network = load_baseline("resnet20", "random").network.eval()
    forward, seen = FusedForward(network), []
    handle = network.get_submodule(read).register_forward_hook(
        lambda _module, inputs, output: seen.append((inputs[0].clone(), output.clone()))
    )
    network(images())
    with forward.running():
        network(images())
    handle.remove()
    assert len(seen) == 2
    for own, other in zip(*seen, strict=True):
        torch.testing.assert_close(own, other, **CLOSE)


class Capped(nn.Module):
    """Both operands of its addition are a convolution's, and a ReLU6 follows."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(3, 4, 3)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4)])
        self.activation = nn.ReLU6()

    def forward(self, x):
        y = self.norms[0](self.left(x))
        y += self.norms[1](self.right(x))
        return {"both": [self.activation(9 * y), self.activation(y)], "images": x}


@torch.no_grad()
def test_any_structure_of_outputs_comes_out():
    network = Capped().eval()
    expected = network(images())
    with fused(network):
        found = network(images())
    assert found.keys() == expected.keys()
    for own, other in zip(expected["both"], found["both"], strict=True):
        torch.testing.assert_close(own, other, **CLOSE)


class Branching(nn.Module):
    """Its flow depends on values."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


def hooked():
    network = Residual().eval()
    network.outer.register_forward_hook(lambda _module, _inputs, output: output * 2)
    return network


@pytest.mark.parametrize("network", [Branching().eval(), Residual().train(), hooked()])
def test_what_cannot_be_traced_or_is_trained_or_hooked_runs_as_it_is(network):
    with fused(network):
        assert "forward" not in vars(network)
        network(images())


def test_a_network_has_its_own_forward_again_after_an_error():
    network = Residual().eval()
    own = network.forward
    network.forward = own
    with pytest.raises(RuntimeError), fused(network):
        network(torch.zeros(1, 7, 8, 8))
    assert network.forward is own


def test_a_score_after_sequential_repair_is_that_of_the_repaired_network():
    problem = PruningProblem(
        awake_baseline("resnet20"), images(16), repair="sequential", similarity="kl", budget=0.5
    )
    keep = problem.project([0.5] * len(problem.groups))
    network = problem.compress(keep)
    assert problem.evaluate(keep).similarity == pytest.approx(
        problem.score_network(network, keep), abs=1e-4
    )


@pytest.mark.parametrize("features", [1, 40, 128, 129, 300])
def test_a_gram_matrix_is_symmetric_and_that_of_all_products(features):
    rows = torch.randn(5000, features, generator=torch.Generator().manual_seed(0))
    found = gram(rows)
    assert torch.equal(found, found.T)
    torch.testing.assert_close(found, rows.double().T @ rows.double(), atol=0.02, rtol=1e-4)


class ChangedInPlace(nn.Module):
    """Adds a value to what was made of it after it was changed in place."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.first(x)
        if self.way == "module":
            y = self.relu(x)
        elif self.way == "function":
            y = nn.functional.relu(x, inplace=True)
        elif self.way == "method":
            y = x.relu_()
        elif self.way == "discarded":
            nn.functional.relu_(x)
            y = x
        else:
            y = torch.relu(x)
        return self.head((self.second(y) + x).mean((2, 3)))


@pytest.mark.parametrize("way", ["module", "function", "method", "discarded"])
@torch.no_grad()
def test_values_used_after_they_were_changed_in_place_are_left_to_the_network(way):
    network = ChangedInPlace(way).eval()
    expected = network(images())
    with fused(network):
        assert torch.equal(network(images()), expected)
    with pytest.raises(ValueError, match=r"changed in place.*least_squares"):
        PruningProblem(network, images(), repair="sequential")
    problem = PruningProblem(network, images())
    keep = problem.project([0.5] * len(problem.groups))
    cheap = problem.screen([keep])[0]
    assert cheap == pytest.approx(problem.evaluate(keep).similarity, abs=1e-6)
    PruningProblem(ChangedInPlace("copy").eval(), images(), repair="sequential")


@torch.no_grad()
def test_a_module_in_training_is_run_as_it_is():
    network = plain().eval()
    network[1].train()
    expected = copy.deepcopy(network)(images())
    with fused(network):
        torch.testing.assert_close(network(images()), expected)


def doubled(module: nn.Module, kind: str) -> None:
    """Let a layer do more than its type says."""
    if kind == "a hook":
        module.register_forward_hook(lambda _, __, output: 3 * output - 1)
    elif kind == "a hook before":
        module.register_forward_pre_hook(lambda _, inputs: (3 * inputs[0] - 1,))
    else:
        module.forward = types.MethodType(
            lambda self, x: 3 * type(self).forward(self, x) - 1, module
        )


@pytest.mark.parametrize("place", [3, 4, 5])
@pytest.mark.parametrize("kind", ["a hook", "a hook before", "a forward of its own"])
def test_what_layers_do_besides_is_done_and_they_are_not_refitted(kind, place):
    network = awaken(plain())
    doubled(network[place], kind)
    network.eval()
    with torch.no_grad():
        expected = network(images())
        with fused(network):
            torch.testing.assert_close(network(images()), expected, **CLOSE)
    problem = PruningProblem(network, images(64), similarity="mse", features="output", budget=0.6)
    keep = [5, 4]
    delivered, after = problem.finish(keep, images(128, seed=1))
    assert after.similarity > problem.evaluate(keep).similarity - 0.02
    whole, _ = problem.finish(problem.channels, images(16, seed=1))
    torch.testing.assert_close(whole(images()), expected, **CLOSE)
    if place == 3:
        cut = delivered[3].weight.detach()
        before = network[3].weight.detach()
        kept = problem.kept_channels(keep)
        assert torch.equal(cut, before[kept[1]][:, kept[0]])
