"""Fits in front of ReLUs, capped or not: what lies in a flat part means the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks_for_tests import Head, awaken, images
from torch import nn
from torch.nn import functional as F

from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.repair.conv_bn import ConvBN
from lfgcl_env.pruning.repair.gauss_newton import Pair, _pull_back
from lfgcl_env.pruning.repair.graph_runner import rectifier_after, trace
from lfgcl_env.pruning.repair.layer_fit import Fit
from lfgcl_env.pruning.repair.profiles import SequentialOptions
from lfgcl_env.pruning.repair.rectifier import Goals, Rectifier

KINDS = [Rectifier(), Rectifier(6.0), Rectifier(1.0)]


def pairs():
    """Targets and outputs, on both sides of every bend and on it."""
    return torch.meshgrid(*[torch.linspace(-9, 9, 37)] * 2, indexing="ij")


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_autograd(kind):
    values, direction = pairs()
    values = values.clone().requires_grad_()
    expected = F.relu(values) if kind.cap is None else F.hardtanh(values, 0, kind.cap)
    (gradient,) = torch.autograd.grad(expected, values, direction)
    assert torch.equal(kind(values), expected)
    assert torch.equal(kind.pull_back(direction, values.detach()), gradient)
    assert torch.equal(kind.replace(values.detach().clone()), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_goals_mean_the_same_as_targets_and_are_nearest_to_the_output(kind):
    target, output = pairs()
    goal = Goals(kind, target).near(output.clone())
    assert torch.equal(kind(goal), kind(target))
    others = torch.linspace(-9, 9, 37)[:, None, None].expand(-1, *target.shape)
    distance = torch.where(kind(others) == kind(target), (others - output).abs(), torch.inf)
    assert torch.equal((goal - output).abs(), distance.amin(0))


@pytest.mark.parametrize("kind", KINDS)
def test_the_gate_shuts_where_target_and_output_lie_in_one_flat_part(kind):
    target, output = pairs()
    flat = (target <= 0) & (output <= 0)
    if kind.cap is not None:
        flat |= (target >= kind.cap) & (output >= kind.cap)
    assert torch.equal(kind.gate(target, output) > 0, ~flat)


def test_a_fit_knows_that_targets_beyond_the_cap_mean_the_same():
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(4000, 6, generator=draw)
    wanted = torch.randn(4000, 4, generator=draw) * 2 + rows[:, :4] * 4 + 3
    errors = []
    for kind in (None, Rectifier(), Rectifier(6.0)):
        layer = nn.Linear(6, 4)
        fit = Fit(ConvBN(layer, None), wanted, None, relu=kind, ridge=1e-6)
        fit.read([rows], [torch.zeros(4000, 1, dtype=torch.int64)])
        fit.solve(1)
        with torch.no_grad():
            errors.append(float((F.relu6(layer(rows)) - F.relu6(wanted)).square().mean()))
    assert errors[2] < errors[1] < errors[0]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_pulled_back_as_autograd_does(kind):
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 4, 3, padding=1)
    x, wanted = torch.randn(8, 3, 6, 6) * 6, torch.randn(8, 4, 6, 6)
    places = torch.arange(36).expand(8, -1)
    fits = []
    for layer, inputs in ((first, x), (second, kind(first(x)))):
        rows = wanted.movedim(1, -1).reshape(-1, 4)
        fits.append(Fit(ConvBN(layer, None), rows, None, relu=None, ridge=1e-3))
        fits[-1].read([inputs.detach()], [places])
    inner = first(x).detach().requires_grad_()
    error = (wanted - second(kind(inner))).square().sum() / 2
    (gradient,) = torch.autograd.grad(error, inner)
    pair = Pair(*fits, kind, [x], [wanted], None, [places], [places])
    with torch.no_grad():
        pull = _pull_back(pair, [inner.detach()]).pull
    torch.testing.assert_close(pull, -gradient.movedim(1, -1).reshape(-1, 5), rtol=1e-4, atol=1e-3)


CAPPED = {
    "nn.ReLU": (nn.ReLU, Rectifier()),
    "nn.ReLU6": (nn.ReLU6, Rectifier(6.0)),
    "nn.Hardtanh from 0": (lambda: nn.Hardtanh(0.0, 2.0), Rectifier(2.0)),
    "nn.Hardtanh": (nn.Hardtanh, None),
    "nn.Hardswish": (nn.Hardswish, None),
}


class Called(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 4, 1), function

    def forward(self, x):
        return self.function(self.conv(x))


FUNCTIONS = {
    "F.relu6": (F.relu6, Rectifier(6.0)),
    "F.hardtanh": (F.hardtanh, None),
    "F.hardtanh by place": (lambda x: F.hardtanh(x, 0, 3), Rectifier(3.0)),
    "F.hardtanh by name": (lambda x: F.hardtanh(x, max_val=4.0, min_val=0), Rectifier(4.0)),
    "method": (lambda x: x.relu(), Rectifier()),
}


@pytest.mark.parametrize("name", [*CAPPED, *FUNCTIONS])
def test_rectifiers_are_found_as_modules_and_functions(name):
    if name in CAPPED:
        build, expected = CAPPED[name]
        network = nn.Sequential(nn.Conv2d(3, 4, 1), build())
    else:
        function, expected = FUNCTIONS[name]
        network = Called(function)
    (conv,) = (n for n in trace(network).nodes if str(n.target) in ("0", "conv"))
    found = rectifier_after(network, conv)
    assert (found[1] if found else None) == expected


@pytest.mark.parametrize("name", CAPPED)
def test_pairs_are_alternated_through_rectifiers_alone(name):
    build, rectifier = CAPPED[name]
    layers = (nn.Conv2d(3, 8, 3, padding=1), build(), nn.Conv2d(8, 8, 3, padding=1), build())
    problem = PruningProblem(awaken(nn.Sequential(*layers, Head(8))), images(16, 12), budget=0.6)
    keep = problem.project(np.full(len(problem.groups), 0.5))
    few = SequentialOptions(rows=4096, gauss_newton=0)
    first, second = (
        problem.repair_all([keep], images(16, 12, seed=1), replace(few, gauss_newton=n))[0]
        for n in (0, 2)
    )
    assert torch.equal(first[0].weight, second[0].weight) is (rectifier is None)


def test_alternation_lowers_the_error_behind_capped_relus():
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU6()]
    for _ in range(3):
        layers += [nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU6()]
    network = awaken(nn.Sequential(*layers, Head(16)))
    with torch.no_grad():
        network[0].weight *= 8  # many values lie beyond the cap
        network[3].weight *= 6
    problem = PruningProblem(network, images(64, 12), budget=0.5)
    keep = problem.project(np.full(len(problem.groups), 0.5))
    more, judge = images(256, 12, seed=1), problem.judge(images(64, 12, seed=2))
    scores = [
        judge(problem.repair_all([keep], more, SequentialOptions(rows=16384, gauss_newton=n))[0])
        for n in (0, 3)
    ]
    assert scores[1] > scores[0] > judge(problem.compress(keep))
