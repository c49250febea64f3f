"""torchvision's detectors: what they compute everywhere in an image, before they pick boxes.

What a detector returns differs in number from image to image, and cannot be compared; which boxes
it picks depends on thresholds. Before that it is a network like others: a backbone gives maps, and
dense heads give scores and boxes at every place of them.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lfgcl_env.networks.normalization import Normalization

_KINDS = {
    "torchvision.models.detection.retinanet": "RetinaNet",
    "torchvision.models.detection.fcos": "FCOS",
    "torchvision.models.detection.ssd": "SSD",
    "torchvision.models.detection.generalized_rcnn": "GeneralizedRCNN",
}
"""Classes of detectors by their modules, which are imported by whoever has such a network."""


@dataclass(frozen=True)
class DenseOutputs:
    """Calls a detector for its maps and what its dense heads make of them.

    Detectors of one stage (RetinaNet, FCOS, SSD) return what their head does: scores and boxes at
    every anchor. Those of two stages (Faster, Mask and Keypoint R-CNN) return what their region
    proposal network does, and the maps that later stages cut regions out of; these later stages are
    not run.

    Attributes:
        normalization: that the detector's transform applies before its backbone.
    """

    normalization: Normalization

    def run(self, network: Any, forward: Callable[..., Any], images: Tensor) -> Any:
        """Return the dense outputs of images, (images, 3, height, width), normalised."""
        maps = network.backbone(images)
        named = maps if isinstance(maps, dict) else {"0": maps}
        if hasattr(network, "head"):
            return network.head(list(named.values()))
        scores, boxes = network.rpn.head(list(named.values()))
        return {"maps": dict(named), "objectness": scores, "rpn_boxes": boxes}

    def given(self, images: Tensor) -> Tensor:
        """Return images as pixels from 0 to 1, which the detector normalises itself."""
        mean, std = (
            torch.tensor(values, dtype=images.dtype, device=images.device)[:, None, None]
            for values in (self.normalization.mean, self.normalization.std)
        )
        return images * std + mean


def dense_outputs(network: nn.Module) -> DenseOutputs | None:
    """Return how to call a network if it is a detector of torchvision, else None."""
    for place, name in _KINDS.items():
        module = sys.modules.get(place)
        kind = getattr(module, name, None)
        if kind is not None and isinstance(network, kind):
            own = type(network).forward is not kind.forward or "forward" in vars(network)
            transform: Any = network.transform
            means, deviations = tuple(transform.image_mean), tuple(transform.image_std)
            return None if own else DenseOutputs(Normalization(means, deviations))
    return None
