"""A copy of a network has nothing of what was computed before."""

import torch
from torch import nn

from lfgcl_env.networks.copying import copy_network


class Remembering(nn.Module):
    """Keeps what it computed from its weight, as LeViT's attention does."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.kept = {}
        self.last = None

    def train(self, mode=True):
        if mode:
            self.kept = {}
        return super().train(mode)

    def forward(self, x):
        if self.training:
            return x * self.weight.square()
        if "square" not in self.kept:
            self.kept["square"] = self.weight.square()
        self.last = x * self.kept["square"]
        return self.last


def test_a_copy_follows_its_own_weights():
    network = Remembering().eval()
    network(torch.ones(1, 3))
    double = copy_network(network)
    with torch.no_grad():
        double.weight.fill_(3)
    assert double(torch.ones(1, 3)).tolist() == [[9, 9, 9]]
    assert network(torch.ones(1, 3)).tolist() == [[1, 1, 1]]


def test_modes_of_modules_stay():
    network = nn.Sequential(Remembering().eval(), Remembering()).train()
    network[0].training = False
    double = copy_network(network)
    assert [module.training for module in double.modules()] == [True, False, True]
    assert [module.training for module in network.modules()] == [True, False, True]
