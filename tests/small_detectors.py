"""Small detectors made of torchvision's parts, with random weights."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.ssd import SSD, SSDHead
from torchvision.ops import MultiScaleRoIAlign

SIDE = 32


class Pyramid(nn.Module):
    """Two maps of as many channels, in a dictionary."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels
        self.stem = nn.Sequential(
            *(nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU()),
            *(nn.Conv2d(12, channels, 3, 2, 1), nn.ReLU()),
        )
        self.next = nn.Sequential(
            *(nn.Conv2d(channels, 10, 3, 2, 1), nn.ReLU(), nn.Conv2d(10, channels, 1))
        )

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        fine = self.stem(x)
        return OrderedDict([("0", fine), ("1", self.next(fine))])


class OneMap(nn.Sequential):
    """A backbone that returns one tensor, as torchvision's tutorials build them."""

    out_channels = 16


def _anchors() -> AnchorGenerator:
    return AnchorGenerator(((8,), (16,)), ((1.0,), (1.0,)))


def _retinanet(**more: Any) -> nn.Module:
    head = RetinaNetHead(16, 1, 4)
    return RetinaNet(Pyramid(16), 4, anchor_generator=_anchors(), head=head, **more)


def _faster_rcnn(backbone: nn.Module, **more: Any) -> nn.Module:
    pool = MultiScaleRoIAlign(["0", "1"][: 1 + isinstance(backbone, Pyramid)], 3, 2)
    anchors = _anchors() if isinstance(backbone, Pyramid) else AnchorGenerator(((8,),), ((1.0,),))
    return FasterRCNN(backbone, 4, rpn_anchor_generator=anchors, box_roi_pool=pool, **more)


_SIZES = {"min_size": SIDE, "max_size": SIDE}
DETECTORS: dict[str, Callable[[], nn.Module]] = {
    "RetinaNet": lambda: _retinanet(**_SIZES),
    "FCOS": lambda: FCOS(Pyramid(32), 4, anchor_generator=_anchors(), **_SIZES),
    "SSD": lambda: SSD(
        Pyramid(16),
        DefaultBoxGenerator([[2], [2]]),
        (SIDE, SIDE),
        4,
        head=SSDHead([16, 16], [4, 4], 4),
    ),
    "Faster R-CNN": lambda: _faster_rcnn(Pyramid(16), **_SIZES),
    "Mask R-CNN": lambda: MaskRCNN(
        *(Pyramid(16), 4),
        rpn_anchor_generator=_anchors(),
        box_roi_pool=MultiScaleRoIAlign(["0", "1"], 3, 2),
        mask_roi_pool=MultiScaleRoIAlign(["0", "1"], 4, 2),
        **_SIZES,
    ),
    "Faster R-CNN of one map": lambda: _faster_rcnn(
        OneMap(nn.Conv2d(3, 12, 3, 4, 1), nn.ReLU(), nn.Conv2d(12, 16, 3, 1, 1), nn.ReLU()),
        **_SIZES,
    ),
}
"""Builders by names."""


def detector(name: str, seed: int = 0) -> nn.Module:
    """Return one in evaluation mode, whose heads react to images as trained ones do."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = DETECTORS[name]().eval()
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
    return network
