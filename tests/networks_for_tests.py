"""Small networks, and awake ones of every family, that several test files prune."""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from zoo_hiding import hide

from lfgcl_env.networks import Baseline, load_baseline
from lfgcl_env.pruning import PrunableNetwork, PruningProblem
from lfgcl_env.pruning.structure.layers import BATCH_NORMS, count_macs

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet20": ("resnet20", {}),
    "resnet20-B": ("resnet20", {"shortcut": "B"}),
    "vgg16_bn": ("vgg16_bn", {}),
    "mobilenet_v2": ("mobilenet_v2", {}),
    "densenet": (  # of 14 layers instead of 120
        "torchvision.models:DenseNet",
        {"growth_rate": 8, "block_config": (6, 2, 2, 2), "num_init_features": 16},
    ),
    **{
        name: (f"torchvision:{name}", {})
        for name in (
            "resnet18",
            "resnet50",
            "mobilenet_v3_small",
            "efficientnet_b0",
            "shufflenet_v2_x0_5",
        )
    },
}
"""One network of every kind: its name for load_baseline and its arguments."""

SCOPED = [
    (family, scope)
    for family in FAMILIES
    for scope in ("inner", "all")
    if scope == "all" or family not in ("vgg16_bn", "densenet", "shufflenet_v2_x0_5")
]
"""Families and scopes, without the scope that changes nothing where nothing is added up."""


def images(count: int = 4, size: int = 32, seed: int = 0) -> Tensor:
    """Noise of which every image has its own mean and contrast, so that no two look alike."""
    draw = torch.Generator().manual_seed(seed)
    scale = torch.rand(count, 3, 1, 1, generator=draw) + 0.5
    shift = torch.randn(count, 3, 1, 1, generator=draw)
    return torch.randn(count, 3, size, size, generator=draw) * scale + shift


def awaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """Draw weights with activations of order 1, and BatchNorms with uneven scales and statistics.

    Fresh networks of torchvision answer every image with the same 1e-9: any two would agree.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        norms = [module for module in network.modules() if isinstance(module, BATCH_NORMS)]
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
            if isinstance(module, nn.Linear):
                module.weight.normal_(std=module.in_features**-0.5)
                if module.bias is not None:
                    module.bias.normal_(std=0.1)
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(std=0.3)
            norm.train()
            norm.momentum = 1.0
        network(images(16, seed=seed))
        for norm in norms:
            norm.momentum = 0.1
    return network.eval()


def simple_problem(
    network: nn.Module | Baseline, inputs: Tensor, **arguments: Any
) -> PruningProblem:
    """Nothing but cutting: the cheapest choices where ``arguments`` do not say otherwise."""
    plain: dict[str, Any] = {"budget": 1.0, "criterion": "l1", "similarity": "cosine"}
    return PruningProblem(network, inputs, **(plain | {"repair": "none"} | arguments))


@cache
def awake_baseline(family: str) -> Baseline:
    """A network of ``FAMILIES`` with random but lively weights; treat it as read-only."""
    name, arguments = FAMILIES[family]
    baseline = load_baseline(name, "random", input_shape=(3, 32, 32), **arguments)
    awaken(baseline.network)
    return baseline


@cache
def shared_problem(family: str, scope: str = "inner") -> PruningProblem:
    """A problem without repair, built once for all test files; only its memory may change."""
    return simple_problem(awake_baseline(family), images(), scope=scope)


def random_strategy(problem: PruningProblem, seed: int) -> np.ndarray:
    """Any number of channels in every group, from the fewest, but for none, to all."""
    lowest = np.maximum(1, problem.network.lowest)
    return np.random.default_rng(seed).integers(lowest, problem.channels + 1)


def drawn(network: PrunableNetwork, keep: np.ndarray, seed: int = 0) -> list[np.ndarray]:
    """Draw which channels of every group stay."""
    draws = np.random.default_rng(seed)
    sizes = zip(network.channels, keep, strict=True)
    return [np.sort(draws.permutation(channels)[:kept]) for channels, kept in sizes]


@torch.no_grad()
def hidden(network: PrunableNetwork, kept: list[np.ndarray], inputs: Tensor) -> Tensor:
    """The whole network's outputs where all consumers get zeros for what is removed.

    Norms over all channels take mean and variance of what stays.
    """
    return hide(network, kept)(inputs)


def check_exactness(
    network: PrunableNetwork,
    strategies: list[np.ndarray],
    tolerance: float = 1e-5,
    inputs: Tensor | None = None,
) -> None:
    """Cut networks compute what hiding computes, and cost what PyTorch counts."""
    if inputs is None:
        inputs = images(5, network.baseline.input_shape[-1], seed=3)
    candidate = network.candidate()
    for keep in strategies:
        kept = drawn(network, keep)
        expected = hidden(network, kept, inputs)
        scale = float(expected.abs().max())
        cut = network.cut(kept)
        candidate.install(kept)
        for smaller in (cut, candidate.network):
            with torch.no_grad():
                assert float((smaller(inputs) - expected).abs().max()) <= tolerance * scale
        assert cut.state_dict().keys() == candidate.network.state_dict().keys()
        cost = network.cost(keep)
        assert cost.macs == count_macs(cut, inputs[:1])
        assert cost.params == sum(parameter.numel() for parameter in cut.parameters())


class Head(nn.Module):
    """Pools and classifies; the last layers of the small networks below."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))


def plain() -> nn.Module:
    """Two convolutions with BatchNorm, and a classifier."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        Head(6),
    )


def flattening() -> nn.Module:
    """A linear layer reads every position of every channel, as in VGG."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 10),
        nn.ReLU(),
        nn.Linear(10, 5),
    )


class Shuffling(nn.Module):
    """Channel shuffle between two convolutions, and a plain convolution after them."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 8, 3, padding=1)
        self.after = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 8, 3, padding=1)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.before(x))
        count, channels, height, width = x.shape
        x = x.view(count, 2, channels // 2, height, width).transpose(1, 2)
        x = F.relu(self.after(x.reshape(count, channels, height, width)))
        return self.head(F.relu(self.last(x)))


class ZeroPadded(nn.Module):
    """A shortcut that pads a fixed number of zero channels, as ResNet's option A does."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 6, 3, padding=1)
        self.outer = nn.Conv2d(6, 8, 3, padding=1)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.outer(F.relu(self.inner(x)))
        return self.head(F.relu(y + F.pad(x, (0, 0, 0, 0, 2, 2))))


class Residual(nn.Module):
    """A block whose addition couples two producers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.inner = nn.Conv2d(6, 4, 3, padding=1)
        self.outer = nn.Conv2d(4, 6, 3, padding=1)
        self.head = Head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(F.relu(x + self.outer(F.relu(self.inner(x)))))


class Concatenating(nn.Module):
    """Two producers side by side before one consumer."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 4, 3, padding=1)
        self.right = nn.Conv2d(3, 6, 1)
        self.join = nn.Conv2d(10, 8, 3, padding=1)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([F.relu(self.left(x)), F.relu(self.right(x))], dim=1)
        return self.head(F.relu(self.join(joined)))


class SqueezeExcite(nn.Module):
    """Channels that are multiplied by gates computed from themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        gates = self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        return self.head(x * torch.sigmoid(gates))
