"""What an environment makes of its arguments: the network, and checks of images against it."""

from typing import Any, cast

import numpy as np
from torch import Tensor

from lfgcl_env.config import RewardedConfig
from lfgcl_env.edge.named_code import names_code
from lfgcl_env.images import LabelledImages
from lfgcl_env.images.arrays import shape_of
from lfgcl_env.images.datasets import DATASETS
from lfgcl_env.networks.baseline import Baseline, build_baseline
from lfgcl_env.networks.several_inputs import Packing, is_several
from lfgcl_env.pruning.repair.interface import REPAIRS


def score_count(config: RewardedConfig, calibration: int) -> int:
    """Return how many images scores take: as asked, or what suits the repair."""
    count = config["num_score_images"]
    if count is not None:
        return count
    kind = REPAIRS.get(config["repair"])  # the problem refuses unknown ones
    return 0 if kind is None or config["num_images"] is None else kind.score_images * calibration


def build_network(config: RewardedConfig) -> Baseline:
    """Return the network to be pruned.

    Raises:
        ValueError: if it, its weights or arguments are wrong, see
            :func:`~lfgcl_env.networks.load_baseline`.
        FileNotFoundError: if there is no weights file.
        OSError: if published weights cannot be downloaded.
    """
    network = config["network"]
    if isinstance(network, Baseline):
        return network
    shape, images = config["input_shape"], cast(Any, config["images"])
    packing = Packing.of(images) if is_several(images) else None
    if shape is None and isinstance(images, Tensor | np.ndarray) and _comes_without_shape(network):
        shape = shape_of(images)
    return build_baseline(
        network,
        config["weights"],
        config["network_arguments"] or {},
        input_shape=shape,
        normalization=config["normalization"],
        seed=config["seed"],
        packing=packing,
    )


def _comes_without_shape(network: object) -> bool:
    """Whether a network is a module or somebody's function, and so may take inputs of any shape."""
    return not isinstance(network, str) or names_code(network)


def check_labels(images: object) -> None:
    """Refuse reward "accuracy" for images without labels, before anything is loaded."""
    if not isinstance(images, str) or images not in DATASETS:
        given = f"images={images!r}" if isinstance(images, str) else "these images"
        raise ValueError(
            f"reward='accuracy' needs labels, and {given} have none: choose images from "
            f"{', '.join(DATASETS)}, pass labelled=lfgcl_env.images.LabelledImages(...), or use "
            "reward='similarity'"
        )


def check_fit(labelled: LabelledImages, baseline: Baseline) -> None:
    """Refuse labelled images that the network cannot take, and classes that it does not have."""
    shape, classes = tuple(labelled.images.shape[1:]), int(labelled.labels.max()) + 1
    if baseline.num_classes is None:
        raise ValueError(
            f"reward='accuracy' needs a network that returns one score for every class, and "
            f"{baseline.title} returns other outputs: use reward='similarity'"
        )
    if shape != tuple(baseline.input_shape) or classes > baseline.num_classes:
        raise ValueError(
            f"{labelled.name} have shape {shape} and {classes} classes, and the network takes "
            f"{tuple(baseline.input_shape)} and has {baseline.num_classes} classes"
        )
