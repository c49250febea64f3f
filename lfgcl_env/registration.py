"""One table of environment ids, registered with Gymnasium when the package is imported."""

import gymnasium as gym

ENTRY_POINT = "lfgcl_env.envs.global_env:LFGCLEnv"

GLOBAL_IDS: dict[str, str] = {
    "LFGCL-v0": "resnet56",
    "LFGCL-ResNet20-v0": "resnet20",
    "LFGCL-ResNet32-v0": "resnet32",
    "LFGCL-ResNet44-v0": "resnet44",
    "LFGCL-ResNet56-v0": "resnet56",
    "LFGCL-ResNet110-v0": "resnet110",
    "LFGCL-VGG16-v0": "vgg16_bn",
    "LFGCL-MobileNetV2-v0": "mobilenet_v2",
}
"""The global environments' ids and their networks."""


def register_all() -> None:
    """Register every id; ids that are registered already are left as they are."""
    for env_id, network in GLOBAL_IDS.items():
        if env_id not in gym.registry:
            gym.register(env_id, entry_point=ENTRY_POINT, kwargs={"network": network})
