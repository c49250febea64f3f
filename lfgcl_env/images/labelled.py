"""Labelled images: test sets, which only report accuracy, and held-out training images.

Search and repair never see test images. Held-out training images are for rewards that need labels,
such as AMC's.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lfgcl_env.edge.schema import short
from lfgcl_env.edge.value_checks import check_count, check_seed
from lfgcl_env.images.arrays import choose_others
from lfgcl_env.images.chunks import chunks_of
from lfgcl_env.images.datasets import read_dataset
from lfgcl_env.images.pixels import Shape, to_inputs
from lfgcl_env.networks import Normalization
from lfgcl_env.networks.copying import copy_network
from lfgcl_env.networks.outputs import class_scores


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images with their classes.

    Attributes:
        images: (images, ...), floating-point, normalised for the network.
        labels: (images,), int64.
        name: of the data set and split, for reports.

    Raises:
        ValueError: for other types, no images, or not one label of at least 0 for every image.
    """

    images: Tensor
    labels: Tensor
    name: str

    def __post_init__(self) -> None:
        """Check that images and labels belong together."""
        for name, wanted in (("images", True), ("labels", False)):
            given = getattr(self, name)
            fits = isinstance(given, Tensor) and given.is_floating_point() == wanted
            if not fits or given.is_complex() or given.ndim < 1:
                kind = "floating-point tensor" if wanted else "tensor of whole numbers"
                raise ValueError(f"{self.name}: {name} must be a {kind}, got {short(given)}")
        lowest = int(self.labels.min()) if self.labels.numel() else 0
        if lowest < 0:
            raise ValueError(f"{self.name}: labels must be at least 0, got {lowest}")
        if len(self.images) == 0 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"{self.name}: {len(self.images)} images and labels of shape "
                f"{tuple(self.labels.shape)}, where one label for every image is needed"
            )


def load_test_set(
    name: str,
    *,
    normalization: Normalization | None,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
) -> LabelledImages:
    """Load the test images of a data set, with labels.

    Args:
        name: ``"CIFAR10"`` or ``"CIFAR100"``.
        normalization: of the network; None leaves pixels in [0, 1].
        root: the folder of the data sets, see :func:`data_root`.
        download: download the data set if it is missing.

    Raises:
        ValueError: if the name is unknown.
        FileNotFoundError: if the data set is missing; the message says how to get it.
        OSError: if it cannot be downloaded.
    """
    pixels, labels = read_dataset(name, train=False, root=root, download=download)
    return LabelledImages(to_inputs(pixels, normalization), labels, f"{name} test")


def load_held_out(
    name: str,
    count: int,
    *,
    used: int,
    shape: Shape,
    normalization: Normalization | None,
    seed: int = 0,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
) -> LabelledImages:
    """Load labelled training images of a data set that are no calibration images.

    Args:
        name: ``"CIFAR10"`` or ``"CIFAR100"``.
        count: number of images.
        used: number of calibration images that :func:`load_images` draws with this seed. Larger
            draws do not overlap either, as long as there are enough images.
        shape: (channels, height, width) that the network takes; images are fitted to it.
        normalization: of the network; None leaves pixels in [0, 1].
        seed: of the draw.
        root: the folder of the data sets, see :func:`data_root`.
        download: download the data set if it is missing.

    Raises:
        ValueError: if the name is unknown, or there are too few images.
        FileNotFoundError: if the data set is missing; the message says how to get it.
        OSError: if it cannot be downloaded.
    """
    check_count(count, "num_labelled")
    check_seed(seed)
    pixels, labels = read_dataset(name, train=True, root=root, download=download)
    chosen = choose_others(len(pixels), count, used, seed, name)
    images = to_inputs(pixels[chosen], normalization, shape)
    return LabelledImages(images, labels[chosen], f"{name} training images held out")


def top1(
    network: nn.Module,
    test_set: LabelledImages,
    batch_size: int = 100,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> float:
    """Measure how often the largest output is the right class [%].

    Args:
        network: with classes; not changed; copied if it is on another device.
        test_set: images and labels.
        batch_size: images per forward pass; about 100 fit the cache of a CPU and are fastest there.
        device: where to compute.
        progress: called with the images done and their number.

    Raises:
        ValueError: if ``batch_size`` is not positive.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size} is not a positive number of images")
    device = torch.device(device)
    if any(parameter.device.type != device.type for parameter in network.parameters()):
        network = copy_network(network).to(device)
    modes = [(module, module.training) for module in network.modules()]
    right = done = 0
    try:
        network.eval()
        with torch.inference_mode():
            for images, labels in zip(
                chunks_of(test_set.images, batch_size),
                chunks_of(test_set.labels, batch_size),
                strict=True,
            ):
                # Faster on CPUs: oneDNN keeps the layout from layer to layer.
                layout = torch.channels_last if images.dim() == 4 else torch.preserve_format
                inputs = images.to(device, memory_format=layout)
                logits = class_scores(network(inputs))
                right += int((logits.argmax(1).cpu() == labels).sum())
                done += len(labels)
                progress(done, len(test_set.images))
    finally:
        for module, training in modes:
            module.training = training
    return 100 * right / len(test_set.images)
