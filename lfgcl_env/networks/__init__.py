"""Networks to be pruned: by name, from torchvision, or your own, with or without weights."""

from lfgcl_env.networks.baseline import Baseline, load_baseline
from lfgcl_env.networks.builders import build_network, network_names
from lfgcl_env.networks.cifar_resnet import CifarResNet
from lfgcl_env.networks.embedded_weights import embedded_names, load_embedded
from lfgcl_env.networks.mobilenet_v2 import CifarMobileNetV2
from lfgcl_env.networks.normalization import IMAGENET, Normalization
from lfgcl_env.networks.published import PUBLISHED, PublishedWeights
from lfgcl_env.networks.shortcut_conversion import with_projections
from lfgcl_env.networks.vgg import CifarVGG16

__all__ = [
    "IMAGENET",
    "PUBLISHED",
    "Baseline",
    "CifarMobileNetV2",
    "CifarResNet",
    "CifarVGG16",
    "Normalization",
    "PublishedWeights",
    "build_network",
    "embedded_names",
    "load_baseline",
    "load_embedded",
    "network_names",
    "with_projections",
]
