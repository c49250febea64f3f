"""Small networks with unusual inputs, outputs, or ways between them."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Noise of which every input has its own scale and shift."""
    draw = torch.Generator().manual_seed(seed)
    each = (shape[0], *[1] * (len(shape) - 1))
    scale, shift = torch.rand(each, generator=draw) + 0.5, torch.randn(each, generator=draw)
    return torch.randn(*shape, generator=draw) * scale + shift


def sound() -> nn.Module:
    """Sequences (channels, length)."""
    return nn.Sequential(
        *(nn.Conv1d(3, 12, 5, padding=2), nn.BatchNorm1d(12), nn.ReLU()),
        *(nn.Conv1d(12, 8, 3, stride=2), nn.ReLU(inplace=True), nn.Conv1d(8, 8, 3), nn.ReLU()),
        *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 5)),
    )


def volume() -> nn.Module:
    """Volumes (channels, depth, height, width)."""
    return nn.Sequential(
        *(nn.Conv3d(2, 8, 3, padding=1, bias=False), nn.BatchNorm3d(8), nn.ReLU()),
        *(nn.Conv3d(8, 6, 3, stride=2), nn.ReLU(), nn.Conv3d(6, 6, 1), nn.ReLU()),
        *(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 5)),
    )


def table() -> nn.Module:
    """Rows (features,)."""
    return nn.Sequential(
        *(nn.Linear(20, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU()),
        nn.Linear(16, 5),
    )


class Forked(nn.Module):
    """A trunk, a head for boxes and a head for classes.

    Args:
        give: what is returned of the boxes (images, 4) and the logits (images, 10).
    """

    def __init__(self, give: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU())
        )
        self.box1, self.box2 = nn.Conv2d(12, 16, 3, padding=1), nn.Linear(16, 4)
        self.cls1, self.cls2 = nn.Conv2d(12, 16, 3, padding=1), nn.Linear(16, 10)
        self.give = give

    def forward(self, x: Tensor) -> Any:
        x = self.trunk(x)
        boxes = self.box2(F.relu(self.box1(x)).mean((2, 3)))
        return self.give(boxes, self.cls2(F.relu(self.cls1(x)).mean((2, 3))))


class Named(NamedTuple):
    boxes: Tensor
    logits: Tensor


@dataclass
class Result:
    boxes: Tensor
    logits: Tensor
    loss: Tensor | None = None


class ModelOutput(OrderedDict[str, Any]):
    """Attributes that are items, as the library transformers returns."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(name)
        return self[name]


def joined(boxes: Tensor, logits: Tensor) -> Tensor:
    return torch.cat([boxes, logits], dim=1)


def nested(boxes: Tensor, logits: Tensor) -> dict[str, Any]:
    return {"found": [boxes, {"logits": logits}], "labels": logits.argmax(1), "step": 3}


def model_output(boxes: Tensor, logits: Tensor) -> ModelOutput:
    return ModelOutput(boxes=boxes, logits=logits)


def listed(boxes: Tensor, logits: Tensor) -> list[Tensor]:
    return [boxes, logits]


def mapped(boxes: Tensor, logits: Tensor) -> dict[str, Tensor]:
    return {"boxes": boxes, "logits": logits}


SEVERAL = {
    "tuple": (Named, ["0", "1"]),
    "list": (listed, ["0", "1"]),
    "dictionary": (mapped, ["boxes", "logits"]),
    "nested": (nested, ["found.0", "found.1.logits"]),
    "dataclass": (Result, ["boxes", "logits"]),
    "ModelOutput": (model_output, ["boxes", "logits"]),
}
"""Ways to return two tensors, and the names that they get."""


def segmenting(classes: int = 4) -> nn.Module:
    """Maps (classes, height, width)."""
    return nn.Sequential(
        *(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU()),
        *(nn.Conv2d(12, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, classes, 1)),
    )


class Regressing(nn.Module):
    """One number for every image: (images, 1), or (images,) where it is flat."""

    def __init__(self, flat: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1)),
        )
        self.flat = flat

    def forward(self, x: Tensor) -> Tensor:
        found = self.layers(x)
        return found[:, 0] if self.flat else found


class Splitting(nn.Module):
    """Halves that go separate ways and are gathered in a list, as the stages of YOLOv8."""

    def __init__(self, channels: int, out: int, blocks: int = 2) -> None:
        super().__init__()
        half = out // 2
        self.split = nn.Conv2d(channels, 2 * half, 1)
        self.join = nn.Conv2d((2 + blocks) * half, out, 1)
        convs = [[nn.Conv2d(half, half, 3, padding=1) for _ in range(2)] for _ in range(blocks)]
        self.blocks = nn.ModuleList(
            nn.Sequential(one, nn.SiLU(), other, nn.SiLU()) for one, other in convs
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = list(F.silu(self.split(x)).chunk(2, 1))
        parts.extend(parts[-1] + block(parts[-1]) for block in self.blocks)
        return self.join(torch.cat(parts, 1))


def splitting() -> nn.Module:
    """Two stages of halves that go separate ways."""
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.SiLU(), Splitting(8, 12), nn.SiLU()),
        *(nn.Conv2d(12, 12, 3, padding=1), nn.SiLU(), Splitting(12, 16, blocks=1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
    )


class Detecting(nn.Module):
    """A list with a dictionary for every image, whose sizes depend on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        )
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        maps = self.head(self.backbone(x)).flatten(2).movedim(1, 2)
        return [{"boxes": one[one[:, 4] > 0, :4]} for one in maps]


UNUSUAL: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "sound": (sound, (3, 32)),
    "volume": (volume, (2, 7, 8, 9)),
    "table": (table, (20,)),
    "segmentation": (segmenting, (3, 12, 10)),
    "depth map": (lambda: segmenting(1), (3, 12, 10)),
    "number": (lambda: Regressing(flat=False), (3, 12, 10)),
    "flat number": (lambda: Regressing(flat=True), (3, 12, 10)),
    "halves in lists": (splitting, (3, 12, 10)),
    "two heads": (lambda: Forked(joined), (3, 12, 10)),
    **{
        f"two heads, {kind}": (lambda give=give: Forked(give), (3, 12, 10))
        for kind, (give, _) in SEVERAL.items()
    },
}
"""Networks, and the shapes of their inputs."""

UNTRACEABLE = {"halves in lists"}
"""Those that torch.fx cannot trace."""


def made(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """Return one of them with random weights and statistics, and inputs for it."""
    build, shape = UNUSUAL[name]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        network = build()
        norms = [m for m in network.modules() if hasattr(m, "running_mean")]
        for norm in norms:
            norm.momentum = 1.0
        network.train()(noise(32, *shape, seed=seed))
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(std=0.3)
    return network.eval(), noise(24, *shape, seed=seed + 1)
