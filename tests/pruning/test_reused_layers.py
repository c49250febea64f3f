"""Layers that a network calls more than once: no repair makes it worse."""

import pytest
import torch
from networks_for_tests import awaken, images
from torch import Tensor, nn
from torch.nn import functional as F

from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.repair.interface import REPAIRS
from lfgcl_env.pruning.repair.profiles import SequentialOptions


class Recurrent(nn.Module):
    """One residual block, applied three times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.up, self.down = nn.Conv2d(12, 24, 3, padding=1), nn.Conv2d(24, 12, 3, padding=1)
        self.fc = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        for _ in range(3):
            x = x + self.down(self.up(x).relu())
        return self.fc(x.relu().mean((2, 3)))


class Pyramid(nn.Module):
    """One head for two levels, as RetinaNet's."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 3, 2, 1)
        self.head = nn.Sequential(
            *(nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1)),
            nn.ReLU(),
        )
        self.fc = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x).relu()
        levels = (fine, self.coarse(fine).relu())
        return self.fc(sum(F.adaptive_avg_pool2d(self.head(one), 1).flatten(1) for one in levels))


@pytest.mark.parametrize("repair", sorted(set(REPAIRS) - {"batchnorm"}))
@pytest.mark.parametrize("build", [Recurrent, Pyramid])
def test_a_repair_of_layers_that_are_called_again_does_no_harm(build, repair):
    problem = PruningProblem(awaken(build()), images(32, 12), budget=0.5, repair=repair)
    keep = problem.project([0.4] * len(problem.groups))
    options = SequentialOptions(rows=16384)
    finished, evaluation = problem.finish(keep, images(128, 12, seed=1), options)
    judge = problem.judge(images(64, 12, seed=2))
    assert evaluation.similarity >= problem.score_network(problem.cut(keep), keep)
    assert judge(finished) >= max(judge(problem.compress(keep)), judge(problem.cut(keep))) - 1e-3
    twice = {Recurrent: "up", Pyramid: "head.2"}[build]
    closed = PruningProblem(problem.baseline, images(32, 12), budget=0.5)
    expected = closed.compress(keep).get_submodule(twice)
    if repair != "none":
        assert torch.equal(finished.get_submodule(twice).weight, expected.weight)
