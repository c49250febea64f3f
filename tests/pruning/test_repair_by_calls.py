"""Networks of which there is no graph of operations: refitted from module calls, and said so."""

import numpy as np
import pytest
import torch
from networks_for_tests import awaken, images
from torch import nn
from torch.nn import functional as F

from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.repair.by_calls import Call, find_calls
from lfgcl_env.pruning.repair.cut_graph import find_obstacle
from lfgcl_env.pruning.repair.profiles import SequentialOptions

FEW = SequentialOptions(rows=4096)


class Branching(nn.Module):
    """Goes one way or another by the values of its images, and has a residual block."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.up, self.down = nn.Conv2d(16, 24, 3, padding=1), nn.Conv2d(24, 16, 3, padding=1)
        self.bright, self.dark = nn.Conv2d(16, 12, 1), nn.Conv2d(16, 12, 1)
        self.last = nn.Linear(12, 6)

    def forward(self, x):
        if x.mean() > 1e3:
            x = x / 2
        kept = F.relu(self.norm(self.first(x)))
        x = F.relu(kept + self.down(F.relu(self.up(kept))))
        branch = self.bright if x.min() >= 0 else self.dark
        return self.last(F.relu(branch(x)).mean((2, 3)))


class Reading(nn.Module):
    """Reads the size of a layer, which tracing takes for a constant."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x):
        x = self.first(x).relu()
        return self.last(x.reshape(-1, self.last.in_channels, 8, 8)).mean((2, 3))


class InPlace(nn.Module):
    """Adds what was changed in place, which no graph shows."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.up, self.down = nn.Conv2d(12, 16, 3, padding=1), nn.Conv2d(16, 12, 3, padding=1)
        self.last = nn.Linear(12, 5)

    def forward(self, x):
        kept = self.first(x)
        x = self.down(F.relu(self.up(F.relu(kept, inplace=True))))
        return self.last((x + kept).relu().mean((2, 3)))


class Encoder(nn.TransformerEncoderLayer):
    """A network that is one operation."""

    def __init__(self):
        super().__init__(16, 4, 32, dropout=0.0, batch_first=True)


def tokens(count, seed=0):
    return torch.randn(count, 20, 16, generator=torch.Generator().manual_seed(seed))


CASES = {
    "flow by values": (Branching, images, r"torch\.fx can trace"),
    "sizes of its own": (Reading, lambda n, seed=0: images(n, 8, seed), "reads some that change"),
    "values in place": (InPlace, images, "changed in place"),
    "one operation": (Encoder, tokens, r"torch\.fx can trace"),
}


def made(case, budget=0.6, **arguments):
    build, draw, _ = CASES[case]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = build().eval()
    network = network if case == "one operation" else awaken(network)
    return PruningProblem(network, draw(64), budget=budget, **arguments), draw


def halved(problem):
    return np.maximum(1, problem.channels // 2)


@pytest.mark.parametrize("case", CASES)
def test_sequential_repair_before_scores_is_refused_with_the_name_of_another(case):
    reason = CASES[case][2]
    with pytest.raises(ValueError, match=f"{reason}.*: choose repair='least_squares'"):
        made(case, repair="sequential")


@pytest.mark.parametrize("case", CASES)
def test_finished_networks_are_nearer_to_the_baseline_than_the_closed_form(case, caplog):
    problem, draw = made(case)
    keep = halved(problem)
    judge = problem.judge(draw(64, seed=2))
    network, evaluation = problem.finish(keep, draw(256, seed=1), FEW)
    assert "refitted from module calls instead" in caplog.text
    assert "made the network worse" not in caplog.text
    assert judge(network) > judge(problem.compress(keep)) > judge(problem.cut(keep))
    assert sum(p.numel() for p in network.parameters()) == evaluation.params


def test_a_network_with_a_graph_is_refitted_by_it(caplog):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten())
    problem = PruningProblem(awaken(network), images(8, 8))
    problem.finish(halved(problem), images(8, 8, seed=1), FEW)
    assert find_obstacle(problem.network) is None
    assert not caplog.text


def test_nothing_pruned_nothing_changed():
    problem, draw = made("flow by values", budget=1.0)
    (network,) = problem.repair_all([problem.channels], draw(16), FEW)
    for key, tensor in problem.baseline.network.state_dict().items():
        assert torch.equal(network.state_dict()[key], tensor)


def test_each_layer_fits_the_baseline_on_the_inputs_it_gets():
    problem, draw = made("flow by values")
    keep, more = halved(problem), draw(64, seed=1)
    (network,) = problem.repair_all([keep], more, SequentialOptions(rows=10**6, ridge=1e-9))
    seen = {}
    for name, one in {"whole": problem.baseline.network, "pruned": network}.items():

        def keep_value(module, arguments, output, name=name):
            seen[name] = arguments[0], output

        handle = one.down.register_forward_hook(keep_value)
        with torch.no_grad():
            one(more)
        handle.remove()
    inputs, _ = seen["pruned"]
    target = seen["whole"][1]
    rows = F.unfold(inputs, 3, padding=1).movedim(1, 2).flatten(0, 1).double()
    rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
    wanted = target.flatten(2).movedim(1, 2).flatten(0, 1).double()
    best = torch.linalg.lstsq(rows, wanted).solution
    found = torch.cat([network.down.weight.flatten(1), network.down.bias[:, None]], 1)
    torch.testing.assert_close(found.T.double(), best, rtol=1e-2, atol=1e-3)


class Recurring(nn.Module):
    """Calls a layer twice, another never, and a norm on something else than a layer gave."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.twice, self.never = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.third, self.apart = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.last = nn.Linear(8, 4)

    def forward(self, x):
        x = self.norm(self.first(x))
        x = self.apart(self.third(self.twice(self.twice(x))) * 2)
        return self.last(x.mean((2, 3)))


def test_layers_called_once_are_refitted_in_their_order():
    network = awaken(Recurring())
    baseline = load_baseline(network, input_shape=(3, 8, 8))
    norms = {"first": "norm", "third": "apart"}
    found = find_calls(baseline.network, norms, [images(4, 8)] * 2)
    assert found == [
        Call("first", "norm", last=False),
        Call("third", None, last=False),
        Call("last", None, last=True),
    ]


class Heads(nn.Module):
    """Gives what a norm makes of one layer, and the values of another one rectified."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.one, self.norm = nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4)
        self.other = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.first(x).relu()
        return {"maps": (self.norm(self.one(x)), x.mean((2, 3))), "positive": self.other(x).relu()}


def test_layers_that_give_an_output_are_known_behind_their_norms():
    found = find_calls(awaken(Heads()), {"one": "norm"}, [images(4, 8)] * 2)
    assert {call.layer: call.last for call in found} == {
        "first": False,
        "one": True,
        "other": False,
    }
