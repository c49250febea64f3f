"""Training a network on images of a fixed number of epochs, stoppable at any step.

What a step does depends on the recipe, the number of the step and what a checkpoint holds: training
that was stopped gives the very weights of training that was not, on a CPU to the bit.
"""

import copy
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from training_data import TrainingImages, distillation_loss, normalized

from lfgcl_env.edge.files import write_beside
from lfgcl_env.images.datasets import Split
from lfgcl_env.networks import PUBLISHED, Normalization, build_network, load_baseline

CLASSES = {"CIFAR10": 10, "CIFAR100": 100}
RISE = 0.2  # fraction of the steps in which a one-cycle learning rate rises


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights, beside the machine.

    Attributes:
        network: a name of :func:`lfgcl_env.networks.network_names`.
        data: CIFAR10 or CIFAR100.
        epochs: times that every image is seen.
        batch_size: images of a step.
        learning_rate: the highest one, of SGD with Nesterov momentum.
        momentum: of SGD.
        weight_decay: of weights of convolutions and linear layers; biases and BatchNorm have none.
        schedule: ``one-cycle``: up in a straight line for a fifth of the steps, and down to 0; or
            ``cosine``: down to 0 from the start.
        smoothing: of the labels.
        ema: decay of the moving average of weights and BatchNorm statistics, per step.
        precision: ``bf16`` (autocast) or ``fp32``.
        teacher: a network whose published weights are distilled; None for none.
        distillation: share of the teacher in the loss.
        temperature: that outputs are divided by for the teacher's share.
        seed: of weights, order, crops and flips.
        subset: train on so many images only; None for all.
        held_out: training images that are not trained on, but watched.
        grown_from: SHA-256 of the weights that training starts from; None for random ones.
    """

    network: str
    data: str = "CIFAR10"
    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "one-cycle"
    smoothing: float = 0.1
    ema: float = 0.998
    precision: str = "fp32"
    teacher: str | None = None
    distillation: float = 0.7
    temperature: float = 4.0
    seed: int = 0
    subset: int | None = None
    held_out: int = 0
    grown_from: str | None = None

    def rate(self, progress: float) -> float:
        """Return the learning rate at a fraction of all steps."""
        if self.schedule == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * progress)) / 2
        return self.learning_rate * min(progress / RISE, (1 - progress) / (1 - RISE))


class Training:
    """A network on its way, one step after the other.

    Args:
        recipe: how.
        images: to train on.
        device: where.
        start: weights to start from; random ones without.

    Attributes:
        done: steps taken.
        steps: steps of the whole training.
        seconds: spent in steps, in all sessions.
        history: a dictionary for every epoch.
    """

    def __init__(
        self,
        recipe: Recipe,
        images: Split,
        device: torch.device,
        start: dict[str, Tensor] | None = None,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.device = recipe, device
        classes = CLASSES[recipe.data]
        self._network = build_network(recipe.network, num_classes=classes)
        if start is not None:
            self._network.load_state_dict(start)
        self._network.to(device, memory_format=torch.channels_last).train()
        self._average = copy.deepcopy(self._network).eval()
        self._optimizer = _optimizer(self._network, recipe)
        self._images = TrainingImages(images, recipe.batch_size, recipe.seed, device)
        self._constants = _constants(PUBLISHED[recipe.network].normalization, device)
        self._teacher = Teacher(recipe.teacher, device) if recipe.teacher else None
        self.steps = recipe.epochs * len(self._images)
        self.done, self.seconds = 0, 0.0
        self.history: list[dict[str, Any]] = []
        self._losses = torch.zeros((), device=device)

    @property
    def epoch(self) -> int:
        """Epochs that are complete."""
        return self.done // len(self._images)

    @property
    def epoch_begins(self) -> bool:
        """Whether the next step is an epoch's first."""
        return self.done % len(self._images) == 0

    def step(self) -> Tensor:
        """Take a step, and return its loss."""
        started = time.perf_counter()
        epoch, position = divmod(self.done, len(self._images))
        pixels, labels = self._images.batch(epoch, position)
        recipe = self.recipe
        for group in self._optimizer.param_groups:
            group["lr"] = recipe.rate((self.done + 0.5) / self.steps)
        with self._autocast():
            logits = self._network(normalized(pixels, *self._constants)).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=recipe.smoothing)
        if self._teacher is not None:
            with self._autocast():
                taught = self._teacher(pixels)
            soft = distillation_loss(logits, taught, recipe.temperature)
            loss = (1 - recipe.distillation) * loss + recipe.distillation * soft
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._update_average()
        self._losses += loss.detach()
        self.done += 1
        self.seconds += time.perf_counter() - started
        if self.epoch_begins:
            self._end_epoch()
        return loss.detach()

    def weights(self) -> dict[str, Tensor]:
        """Return the averaged weights, on the CPU."""
        return {name: t.detach().cpu().clone() for name, t in self._average.state_dict().items()}

    @torch.no_grad()
    def top1(self, split: Split) -> float:
        """Return how often the averaged weights are right [%]."""
        right = 0
        for pixels, labels in zip(split.pixels.split(100), split.labels.split(100), strict=True):
            inputs = normalized(pixels.to(self.device), *self._constants)
            right += int((self._average(inputs).argmax(1).cpu() == labels).sum())
        return 100 * right / len(split.labels)

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        content = {
            "recipe": asdict(self.recipe),
            "network": self._network.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "done": self.done,
            "seconds": self.seconds,
            "history": self.history,
            "losses": self._losses,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_beside(path, lambda partial: torch.save(content, partial))

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: if it was made with another recipe; the message names the differences.
        """
        content = torch.load(path, map_location="cpu", weights_only=True)
        ours = asdict(self.recipe)
        differing = [
            f"{name}={content['recipe'].get(name)!r}, not {value!r}"
            for name, value in ours.items()
            if content["recipe"].get(name) != value
        ]
        if differing:
            raise ValueError(
                f"{str(path)!r} was made with {', '.join(differing)}: give the same options, or "
                "another --out"
            )
        self._network.load_state_dict(content["network"])
        self._average.load_state_dict(content["average"])
        self._optimizer.load_state_dict(content["optimizer"])
        self.done, self.seconds = content["done"], content["seconds"]
        self.history = content["history"]
        self._losses = content["losses"].to(self.device)
        torch.set_rng_state(content["random"])
        if torch.cuda.is_available() and content["random_cuda"]:
            torch.cuda.set_rng_state_all(content["random_cuda"])

    def _autocast(self) -> torch.autocast:
        enabled = self.recipe.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    @torch.no_grad()
    def _update_average(self) -> None:
        # At first the average follows quickly, or the random weights would stay in it for long.
        share = 1 - min(self.recipe.ema, (1 + self.done) / (10 + self.done))
        own = self._network.state_dict()
        for name, average in self._average.state_dict().items():
            if average.is_floating_point():
                average.lerp_(own[name], share)

    def _end_epoch(self) -> None:
        loss = float(self._losses) / len(self._images)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} in epoch {self.epoch}: give a lower --learning-rate"
            )
        self._losses.zero_()
        self.history.append({"epoch": self.epoch, "loss": loss, "seconds": self.seconds})


class Teacher:
    """A trained network whose outputs are learnt from.

    Args:
        name: of a network with published weights.
        device: where it runs.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        baseline = load_baseline(name)
        assert baseline.normalization is not None
        network = fuse(baseline.network).requires_grad_(False)
        self._network = network.to(device, memory_format=torch.channels_last)
        self._constants = _constants(baseline.normalization, device)

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Return logits (images, classes), float32."""
        logits: Tensor = self._network(normalized(pixels, *self._constants))
        return logits.float()


def grown(shallow: dict[str, Tensor], name: str, num_classes: int) -> dict[str, Tensor]:
    """Weights for a deeper ResNet that compute what a shallower one does.

    The blocks that a stage has more are copies of its last one. Their second BatchNorm is scaled by
    0, so that at first they hand on what they get (Chen et al., *Net2Net*, ICLR 2016, do so with
    identity layers), and learn from the first step on.

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


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True, fused=True
    )


def _constants(normalization: Normalization, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, both (channels, 1, 1)."""
    mean, std = (
        torch.tensor(values, device=device)[:, None, None]
        for values in (normalization.mean, normalization.std)
    )
    return mean, std
