"""One table of environment ids, registered with Gymnasium when the package is imported."""

import gymnasium as gym

NETWORKS: dict[str, str] = {
    "": "resnet56",
    "ResNet20-": "resnet20",
    "ResNet32-": "resnet32",
    "ResNet44-": "resnet44",
    "ResNet56-": "resnet56",
    "ResNet110-": "resnet110",
    "VGG16-": "vgg16_bn",
    "MobileNetV2-": "mobilenet_v2",
    "ResNet20-CIFAR100-": "resnet20_cifar100",
}
"""The part of an id that names a network, and the network; an id without it is for any."""

GLOBAL_IDS: dict[str, str] = {f"LFGCL-{name}v0": network for name, network in NETWORKS.items()}
"""The global environments' ids and their networks."""

LAYERWISE_IDS: dict[str, str] = {f"AMC-{name}v0": network for name, network in NETWORKS.items()}
"""The layerwise environments' ids and their networks."""

ANY_IDS = ("LFGCL-v0", "AMC-v0")
"""The ids for any network."""

EMBEDDED = ("resnet20", "resnet20_cifar100", "resnet56")
"""Networks whose ids use the package's embedded weights by default."""

FLAT_IDS: dict[str, str] = {
    f"LFGCL-{name}Flat-v0": network
    for name, network in NETWORKS.items()
    if name and network in EMBEDDED
}
"""Global environments with flat observations, for scripts whose networks take vectors."""

ALL_IDS = GLOBAL_IDS | FLAT_IDS | LAYERWISE_IDS
"""Every id, with its network."""

REPAIR = "sequential"
"""The repair that the global ids of a network score after by default (docs/fidelity.md)."""

_ENTRY_POINTS = (
    ("lfgcl_env.envs.global_env:LFGCLEnv", "LFGCLVectorEnv", GLOBAL_IDS),
    ("lfgcl_env.envs.flat_env:FlatLFGCLEnv", "FlatLFGCLVectorEnv", FLAT_IDS),
    ("lfgcl_env.envs.layerwise_env:AMCEnv", "AMCVectorEnv", LAYERWISE_IDS),
)


def register_all() -> None:
    """Register every id that is not registered yet."""
    for entry_point, vector, ids in _ENTRY_POINTS:
        for env_id, network in ids.items():
            if env_id not in gym.registry:
                kwargs = {"network": network}
                if network in EMBEDDED and env_id not in ANY_IDS:
                    kwargs["weights"] = "embedded"
                if ids is not LAYERWISE_IDS and env_id not in ANY_IDS:
                    kwargs["repair"] = REPAIR
                gym.register(
                    env_id,
                    entry_point=entry_point,
                    vector_entry_point=f"lfgcl_env.envs.vector_env:{vector}",
                    kwargs=kwargs,
                )
