"""Recurrent layers are counted step by step, and never cut."""

import numpy as np
import pytest
import torch
from networks_for_tests import drawn, hidden, random_strategy, simple_problem
from torch import Tensor, nn
from unusual_networks import noise

from lfgcl_env.pruning.structure.layers import count_macs

STEPS, WIDTH = 7, 5


class Reading(nn.Module):
    """Features of every step, read one after the other, and a classifier of two layers."""

    def __init__(self, kind: type[nn.RNNBase], **arguments: bool | int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 6), nn.ReLU())
        self.read = kind(6, WIDTH, batch_first=True, **arguments)
        width = WIDTH * (2 if self.read.bidirectional else 1)
        self.after = nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.read(self.before(x))[0].mean(1))


GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}


def macs_of(network: Reading) -> int:
    """Count by the textbook: every gate reads the input and the state, at every step."""
    read = network.read
    ways = 2 if read.bidirectional else 1
    inputs = [6, *[ways * WIDTH] * (read.num_layers - 1)]
    return STEPS * sum(ways * GATES[type(read)] * WIDTH * (size + WIDTH) for size in inputs)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("arguments", [{}, {"bidirectional": True, "num_layers": 2}])
def test_networks_with_them_are_cut_around_them_and_counted_with_them(kind, arguments):
    torch.manual_seed(0)
    network = Reading(kind, **arguments).eval()
    problem = simple_problem(network, noise(8, STEPS, 4))
    assert [group.name for group in problem.groups] == ["before.0", "after.0"]
    reasons = {item.name: item.reason for item in problem.excluded}
    assert reasons.keys() == {"before.2", "after.2"}
    if kind is not nn.GRU:  # whose steps cannot be followed
        assert reasons["before.2"] == f"{kind.__name__} read is a recurrent layer, which is not cut"
    linear = STEPS * (4 * 9 + 9 * 6) + sum(m.weight.numel() for m in network.after[::2])
    assert problem.baseline_cost.macs == linear + macs_of(network)
    inputs = noise(3, STEPS, 4, seed=3)
    for seed in range(2):
        keep = random_strategy(problem, seed)
        kept = drawn(problem.network, keep)
        cut = problem.network.cut(kept)
        with torch.no_grad():
            found, expected = cut(inputs), hidden(problem.network, kept, inputs)
        assert float((found - expected).abs().max()) < 1e-5
        assert problem.cost(keep).macs == count_macs(cut, inputs)
        assert problem.cost(keep).params == sum(p.numel() for p in cut.parameters())
    keep = problem.project(np.array([0.5, 0.5]))
    assert problem.compress(keep)(inputs).shape == (3, 3)
