"""What the readers of a page have before they begin: networks, images, a run."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import models

from lfgcl_env import PruningProblem
from lfgcl_env.cli.main import main
from lfgcl_env.pruning import allocate

Names = dict[str, Any]

SMALL_RESNET = {
    'network="torchvision:resnet18"': (
        'network="torchvision:resnet18", weights="random", input_shape=(3, 32, 32)'
    )
}
"""Without a download, and of smaller images."""


@dataclass(frozen=True)
class Given:
    """Something that a page presumes.

    Attributes:
        prepare: makes it in the current folder, and returns names for Python.
        replaced: texts of the page, and what runs instead of them.
        needs: data whose truth counts, as those of tests marked ``data``; without any, a made
            data set stands for CIFAR-10.
        check: asserts something of the names that the page's Python leaves behind.
    """

    prepare: Callable[[], Names] = dict
    replaced: dict[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    check: Callable[[Names], None] = lambda names: None


def photos() -> Names:
    """Make a folder of images."""
    Path("photos").mkdir()
    draw = np.random.default_rng(0)
    for number in range(256):
        pixels = draw.integers(0, 256, (80, 72, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{number}.png")
    return {}


def a_run() -> Names:
    """Make a run folder."""
    search = "--evaluations 2 --shortlist 0 --num-images 8 --repair least_squares"
    prune = f"prune LFGCL-ResNet20-v0 --agent random --out runs/r56 {search}"
    assert main(prune.split()) == 0
    return {}


def a_leaderboard() -> Names:
    """Make a run folder, and a leaderboard of the shipped one's first entry."""
    a_run()
    shutil.copytree("runs/r56", "runs/mine")
    Path("benchmarks").mkdir()
    shipped = (Path(__file__).parents[2] / "benchmarks/leaderboard.jsonl").read_text("utf-8")
    Path("benchmarks/leaderboard.jsonl").write_text(shipped.splitlines()[0] + "\n", "utf-8")
    return {}


def small_network() -> torch.nn.Sequential:
    """Return a network of two convolutions for images of any size."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        *[torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3), torch.nn.ReLU()],
        *[torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 10)],
    ).eval()


def a_pruned_network() -> Names:
    """Make a problem, a pruned network and its images, all small."""
    images = torch.randn(32, 3, 32, 32)
    problem = PruningProblem(small_network(), images, budget=0.5)
    keep = allocate(problem)
    network, _ = problem.finish(keep, images)
    return {
        "problem": problem,
        "keep": keep,
        "strategies": [keep, problem.project([0.5, 0.5])],
        "network": network,
        "images": images,
        "other_images": torch.randn(32, 3, 32, 32),
        "Path": Path,
    }


class Reader(torch.nn.Module):
    """Takes two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(6, 16), torch.nn.Linear(16, 4)

    def forward(self, pixels: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Return four numbers."""
        return self.second(torch.relu(self.first(pixels * words)))


def an_own_network() -> Names:
    """Write the module of a network, and make one of two inputs."""
    import gymnasium

    import lfgcl_env

    photos()
    Path("my_package").mkdir()
    Path("my_package/models.py").write_text(
        "from torchvision.models import resnet18\n\n\n"
        "def build():\n    return resnet18(num_classes=10).eval()\n",
        encoding="utf-8",
    )
    names = {name: torch.randn(16, 6) for name in ("pixels", "words", "more_pixels", "more_words")}
    reader = Reader().eval()
    both = {"pixels": names["pixels"], "words": names["words"]}
    keep = PruningProblem(reader, both, budget=0.5).project([0.5])
    return names | {
        "module": small_network(),
        "tensor": torch.randn(16, 3, 32, 32),
        "reader": reader,
        "keep": keep,
        "PruningProblem": lfgcl_env.PruningProblem,
        "gym": gymnasium,
        "torch": torch,
    }


def a_saved_resnet18() -> Names:
    """Save the weights of a ResNet-18, and write the module that the page shows."""
    photos()
    torch.save(models.resnet18(num_classes=10).state_dict(), "resnet18.pt")
    return {}


IMPORTS = """
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.pruning.moments.second_moments import Moments
from lfgcl_env.pruning.repair.interface import Features, Reader, Repair, repair
from lfgcl_env.pruning.score.similarities import similarity
from lfgcl_env.pruning.structure.candidate import Candidate
from lfgcl_env.pruning.structure.cost import Count, Measured, Products, metric
from lfgcl_env.pruning.structure.prunable_network import PrunableNetwork
"""


def imported() -> Names:
    """Import what the parts of files that a page shows have above them."""
    names: Names = {}
    exec(IMPORTS, names)
    return names


def is_smaller(names: Names) -> None:
    """Assert that what was loaded is smaller than the baseline."""
    sizes = [
        sum(parameter.numel() for parameter in network.parameters())
        for network in (names["network"], names["problem"].baseline.network)
    ]
    assert sizes[0] < sizes[1]


def ten_were_scored(names: Names) -> None:
    """Assert that an own agent searched."""
    assert len(names["result"].records) == 10


PAGES = {
    "README.md": Given(
        photos,
        {"evaluations=60": "evaluations=3", "repair_images()": "repair_images(64)"} | SMALL_RESNET,
        check=is_smaller,
    ),
    "CONTRIBUTING.md": Given(imported),
    "docs/command.md": Given(
        replaced={
            "synthesize resnet32": "synthesize resnet20 --weights embedded",
            "prune resnet32": "prune resnet20 --weights embedded",
        }
    ),
    "docs/deploying.md": Given(lambda: a_run() | a_pruned_network()),
    "docs/latency.md": Given(a_run),
    "docs/leaderboard.md": Given(a_leaderboard, needs=("CIFAR10", "resnet20")),
    "docs/many_workers.md": Given(
        replaced={
            "LFGCL-ResNet56-v0": "LFGCL-ResNet20-v0",
            "learn(400)": "learn(4)",
            "--workers 64 --engine ray --ray-address auto --out runs/r56": (
                "--workers 2 --engine ray --out runs/ray"
            ),
        },
    ),
    "docs/own_network.md": Given(
        an_own_network,
        {
            "inspect torchvision:resnet18": "inspect torchvision:resnet18 --weights random",
            '(weights="DEFAULT")': "(weights=None, weights_backbone=None)",
            "(3, 320, 320)": "(3, 64, 64)",
        }
        | SMALL_RESNET,
    ),
    "docs/recovery.md": Given(
        lambda: a_run() | a_pruned_network(), {"RecoveryOptions(epochs=10)": "RecoveryOptions(1)"}
    ),
    "docs/start_agent.md": Given(check=ten_were_scored),
    "docs/start_comparing.md": Given(a_leaderboard),
    "docs/start_network.md": Given(a_saved_resnet18),
    "docs/watching.md": Given(replaced={"evaluations=60": "evaluations=3"}),
}
"""By page; others presume nothing. What docs/saved_networks.md shows has tests of its own."""
