"""Calibration images made from a trained network alone: no data at all.

Yin et al., *Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion*, CVPR 2020. Images
are optimised so that at every BatchNorm layer they have the means and variances that the layer
stored in training. Different from it: deviations are squared and measured in the
layer's own standard deviations, so that one weighting suits every layer and network, the
step size falls along a cosine, and the optimisation starts from noise with the spectrum of natural
images instead of white noise; there is no competition with a student.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lfgcl_env.networks import Baseline, Normalization
from lfgcl_env.networks.copying import copy_network
from lfgcl_env.networks.outputs import class_scores


@dataclass(frozen=True)
class Recipe:
    """Settings of the optimisation of a batch of images.

    Attributes:
        steps: of Adam.
        batch: images that are made together and whose statistics are matched; larger batches
            match better and take longer.
        step_size: of Adam at the start, in standard deviations of the normalization.
        statistics: weight of the BatchNorm statistics beside the classification.
        variation: weight of the mean squared difference of neighbouring pixels.
        magnitude: weight of the mean squared pixel.
        slope: how fast the initial amplitude falls with spatial frequency: 0 for white noise,
            about 1 in natural images (Field, *J. Opt. Soc. Am. A*, 1987).
        shift: most rows and columns by which images are rolled in a step, as a fraction of their
            side.
    """

    steps: int = 300
    batch: int = 64
    step_size: float = 0.1
    statistics: float = 10.0
    variation: float = 0.02
    magnitude: float = 1e-4
    slope: float = 1.0
    shift: float = 1 / 16


RECIPE = Recipe()


def synthesize_batch(
    baseline: Baseline,
    index: int,
    *,
    seed: int,
    recipe: Recipe = RECIPE,
    device: str = "cpu",
    progress: Callable[[], object] = lambda: None,
) -> Tensor:
    """Make one batch of images, which does not depend on other batches.

    Args:
        baseline: the network to make images from; not changed.
        index: of the batch; consecutive batches continue through the classes.
        seed: of the images.
        recipe: settings of the optimisation.
        device: where to compute.
        progress: called after every step.

    Returns:
        (recipe.batch, channels, height, width), uint8 pixels, on the CPU.

    Raises:
        ValueError: if the network has no BatchNorm statistics to match.
    """
    check_statistics(baseline)
    network = copy_network(baseline.network).requires_grad_(False)
    network = network.to(device).to(memory_format=torch.channels_last).eval()
    deviations: list[Tensor] = []
    for module in _statistics_of(network):
        module.register_forward_pre_hook(
            lambda norm, inputs: deviations.append(_deviation(norm, inputs[0]))
        )
    generator = torch.Generator().manual_seed(_batch_seed(seed, index))
    mean, std = _mean_and_std(baseline.normalization, baseline.input_shape[0], device)
    black, white = -mean / std, (1 - mean) / std
    images = _noise((recipe.batch, *baseline.input_shape), recipe.slope, generator).to(device)
    images = images.clamp(black, white).contiguous(memory_format=torch.channels_last)
    images.requires_grad_()
    classes = torch.arange(index * recipe.batch, (index + 1) * recipe.batch, device=device)
    optimizer = torch.optim.Adam([images], lr=recipe.step_size, betas=(0.5, 0.9))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    for _ in range(recipe.steps):
        deviations.clear()
        returned = network(_moved(images, recipe.shift, generator))
        loss = (
            _classification(returned, baseline.num_classes, classes)
            + recipe.statistics * torch.stack(deviations).mean()
            + recipe.variation * _variation(images)
            + recipe.magnitude * images.square().mean()
        )
        (images.grad,) = torch.autograd.grad(loss, images)
        optimizer.step()
        scheduler.step()
        with torch.no_grad():
            images.clamp_(black, white)
        progress()
    pixels = (images.detach() * std + mean) * 255
    return pixels.round().clamp(0, 255).to("cpu", torch.uint8).contiguous()


def _classification(returned: object, num_classes: int | None, classes: Tensor) -> Tensor:
    """Return how far predictions are from classes, which are counted anew where they end."""
    if num_classes is None:
        return torch.zeros((), device=classes.device)
    return F.cross_entropy(class_scores(returned), classes % num_classes)


def check_statistics(baseline: Baseline) -> None:
    """Check that a network takes images and has the statistics that they are made from.

    Raises:
        ValueError: if its inputs are no images (channels, height, width), or it has no BatchNorm
            layer that keeps running statistics.
    """
    if len(baseline.input_shape) != 3:
        raise ValueError(
            f"synthetic images are (channels, height, width), and {baseline.title} takes inputs of "
            f"shape {baseline.input_shape}: give a tensor or an array of them"
        )
    if not _statistics_of(baseline.network):
        raise ValueError(
            f"{baseline.title} has no BatchNorm layer with "
            "running statistics, from which synthetic images are made: give images of your own, "
            "such as a folder"
        )


def _statistics_of(network: nn.Module) -> list[_BatchNorm]:
    """Return the network's BatchNorm layers with running means and variances."""
    return [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]


def _deviation(norm: nn.Module, inputs: Tensor) -> Tensor:
    """Compare means and standard deviations of a layer's inputs with its running statistics.

    The differences are squared, in running standard deviations, and averaged over the channels.
    """
    assert isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    dimensions = [dimension for dimension in range(inputs.ndim) if dimension != 1]
    variance, mean = torch.var_mean(inputs, dimensions)
    expected = norm.running_var + norm.eps  # eps: running variances can be zero
    shifts = (mean - norm.running_mean).square() / expected
    # eps, because the root's slope is infinite at zero, where a channel is constant.
    scales = ((variance + norm.eps).sqrt() / expected.sqrt() - 1).square()
    return (shifts + scales).mean()


def _noise(shape: tuple[int, ...], slope: float, generator: torch.Generator) -> Tensor:
    """Draw noise whose amplitude falls with spatial frequency as ``1 / f ** slope``.

    As in natural images, channels are correlated, and brightness and contrast differ from image
    to image, about 0 and 0.9 standard deviations of the normalization.
    """
    count, channels, height, width = shape
    frequencies = (
        torch.fft.fftfreq(height)[:, None].square() + torch.fft.fftfreq(width).square()
    ) ** 0.5
    amplitude = frequencies.clamp(min=1 / max(height, width)) ** -slope

    def draw(channels: int) -> Tensor:
        white = torch.randn(count, channels, height, width, generator=generator)
        return torch.fft.ifft2(torch.fft.fft2(white) * amplitude).real

    noise = draw(1) + 0.4 * draw(channels)
    spread, mean = torch.std_mean(noise, (1, 2, 3), correction=0, keepdim=True)
    contrast = 0.6 + 0.6 * torch.rand(count, 1, 1, 1, generator=generator)
    brightness = 0.5 * torch.randn(count, 1, 1, 1, generator=generator)
    return (noise - mean) / spread.clamp(min=1e-6) * contrast + brightness


def _moved(images: Tensor, shift: float, generator: torch.Generator) -> Tensor:
    """Roll images by a few rows and columns, and mirror them every other time."""
    offsets = []
    for side in images.shape[2:]:
        most = round(side * shift)
        offsets.append(int(torch.randint(-most, most + 1, (), generator=generator)))
    moved = torch.roll(images, offsets, (2, 3))
    return moved.flip(3) if torch.rand((), generator=generator) < 0.5 else moved


def _variation(images: Tensor) -> Tensor:
    """Return the mean squared difference of neighbouring pixels; 0 for a single pixel."""
    down = images[:, :, 1:] - images[:, :, :-1]
    right = images[:, :, :, 1:] - images[:, :, :, :-1]
    return (down.square().sum() + right.square().sum()) / images.numel()


def _mean_and_std(
    normalization: Normalization | None, channels: int, device: str
) -> tuple[Tensor, Tensor]:
    """Return both, (channels, 1, 1); 0 and 1 if no normalization is known."""
    known = normalization or Normalization((0.0,) * channels, (1.0,) * channels)
    mean, std = (torch.tensor(values, device=device) for values in (known.mean, known.std))
    return mean[:, None, None], std[:, None, None]


def _batch_seed(seed: int, index: int) -> int:
    """Return a seed of its own for every batch of every seed."""
    return int(np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0] >> 1)
