"""The architectures of benchmarks/zoo.py: how they are built, at small inputs."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lfgcl_env.networks.detectors import DenseOutputs, dense_outputs

Spec = tuple[int, Mapping[str, Any]]
"""The side of an input in pixels, and arguments."""

_SIDE_64 = """
alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet mnasnet1_0
mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18
resnet50 resnext50_32x4d shufflenet_v2_x1_0 squeezenet1_1 swin_t swin_v2_t vgg11 vgg11_bn
wide_resnet50_2
"""

MAXVIT = {
    "input_size": (64, 64),
    "partition_size": 2,
    "stem_channels": 64,
    "block_channels": [64, 128, 256, 512],
    "block_layers": [2, 2, 5, 2],
    "head_dim": 32,
    "stochastic_depth_prob": 0.2,
}
"""maxvit_t's, but for windows of 2 positions instead of 7, which small inputs need."""

TORCHVISION: dict[str, Spec] = {
    **{name: (64, {}) for name in _SIDE_64.split()},
    "googlenet": (64, {"init_weights": False}),
    "inception_v3": (96, {"init_weights": False, "aux_logits": False}),
    "maxvit.MaxVit": (64, MAXVIT),
    "vit_b_16": (64, {"image_size": 64}),
    "segmentation.deeplabv3_mobilenet_v3_large": (64, {"weights_backbone": None}),
    "segmentation.fcn_resnet50": (64, {"weights_backbone": None}),
    "segmentation.lraspp_mobilenet_v3_large": (64, {"weights_backbone": None}),
    "detection.fasterrcnn_mobilenet_v3_large_320_fpn": (64, {"weights_backbone": None}),
    "detection.retinanet_resnet50_fpn": (64, {"weights_backbone": None}),
    "detection.ssdlite320_mobilenet_v3_large": (64, {"weights_backbone": None}),
}
"""Networks of torchvision; detectors are called for their dense outputs."""

_TIMM_64 = """
coatnet_nano_rw_224 convnext_atto convnextv2_atto cspresnet50 deit_tiny_patch16_224 dla34
edgenext_xx_small efficientnet_lite0 ese_vovnet19b_dw fastvit_t8 ghostnet_100 hrnet_w18_small
levit_128s mixer_s16_224 mobilenetv4_conv_small mobileone_s0 nf_resnet26 poolformer_s12
regnety_002 repvgg_a0 res2net50_26w_4s resmlp_12_224 resnest14d resnet26d rexnet_100
seresnext26d_32x4d swin_tiny_patch4_window7_224 tinynet_a vit_tiny_patch16_224 xception41
"""

_SIZED: dict[str, Spec] = {
    "coatnet_nano_rw_224": (64, {"img_size": 64}),
    "deit_tiny_patch16_224": (64, {"img_size": 64}),
    "levit_128s": (224, {}),
    "mixer_s16_224": (64, {"img_size": 64}),
    "resmlp_12_224": (64, {"img_size": 64}),
    "swin_tiny_patch4_window7_224": (64, {"img_size": 64, "window_size": 4}),
    "vit_tiny_patch16_224": (64, {"img_size": 64}),
}

TIMM: dict[str, Spec] = {**{name: (64, {}) for name in _TIMM_64.split()}, **_SIZED}
"""Networks of timm."""

NETWORKS: dict[str, Spec] = {**TORCHVISION, **{f"timm:{name}": spec for name, spec in TIMM.items()}}
"""All, by name."""


class Dense(nn.Module):
    """A detector by what it computes before it picks boxes, whoever calls it."""

    def __init__(self, detector: nn.Module, dense: DenseOutputs) -> None:
        super().__init__()
        self.detector, self.dense = detector, dense

    def forward(self, images: Tensor) -> Any:
        """Return the dense outputs."""
        return self.dense.run(self.detector, self.detector.forward, images)


def build(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """Return a network with random weights, and the shape of an input."""
    side, arguments = NETWORKS[name]
    if name.startswith("timm:"):
        import timm

        network: nn.Module = timm.create_model(name.removeprefix("timm:"), **arguments)
    else:
        from torchvision import models

        if name == "maxvit.MaxVit":
            return models.maxvit.MaxVit(**arguments), (3, side, side)
        network = models.get_model(name.rpartition(".")[2], weights=None, **arguments)
        if (dense := dense_outputs(network)) is not None:
            network = Dense(network, dense)
    return network, (3, side, side)
