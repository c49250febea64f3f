"""Starting a deeper ResNet from a shallower one."""

import torch
from torch import Tensor

from lfgcl_env.networks import build_network


def grown(shallow: dict[str, Tensor], name: str, num_classes: int) -> dict[str, Tensor]:
    """Return weights for a deeper ResNet that computes the same as a shallower one.

    A stage's additional blocks are copies of its last one. Their second BatchNorm is scaled by 0,
    so that at first they are the identity (as the layers added by Chen et al., *Net2Net*, ICLR
    2016), and are trained from the first step on.

    Args:
        shallow: weights of the shallower network.
        name: of the deeper network.
        num_classes: its outputs.

    Raises:
        ValueError: if the weights are not those of a shallower ResNet of this kind.
    """
    deep = build_network(name, num_classes=num_classes).state_dict()
    blocks = {
        stage: 1 + max((int(k.split(".")[1]) for k in shallow if k.startswith(stage)), default=-1)
        for stage in ("layer1.", "layer2.", "layer3.")
    }
    for key, value in deep.items():
        stage, source = key[:7], key
        if stage in blocks and int(key.split(".")[1]) >= blocks[stage]:
            source = ".".join([stage[:-1], str(blocks[stage] - 1), *key.split(".")[2:]])
        if source not in shallow or shallow[source].shape != value.shape:
            raise ValueError(f"{name} cannot be grown from these weights: {source} does not fit")
        new = source != key and ".bn2." in key and key.endswith((".weight", ".bias"))
        deep[key] = torch.zeros_like(value) if new else shallow[source].clone()
    return deep
