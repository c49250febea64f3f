"""Training a network on images for a fixed number of epochs, stoppable at any step.

A step depends on the recipe, the number of the step and what a checkpoint holds: training that was
stopped gives the same weights as training that was not, on a CPU to the bit.
"""

import copy
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lfgcl_env.edge.files import write_beside
from lfgcl_env.images.datasets import Split
from lfgcl_env.networks import PUBLISHED, build_network
from training.batches import TrainingImages, normalization_constants, normalized
from training.recipe import CLASSES, Recipe
from training.teacher import Teacher, distillation_loss


class Training:
    """Train a network, one step after the other.

    Args:
        recipe: how to train.
        images: to train on.
        device: where to train.
        start: weights to start from; None for random ones.

    Attributes:
        done: steps taken.
        steps: steps of the whole training.
        seconds: spent in steps, earlier processes included.
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
        self._network.to(device).to(memory_format=torch.channels_last).train()
        self._average = copy.deepcopy(self._network).eval()
        self._optimizer = _optimizer(self._network, recipe)
        self._images = TrainingImages(images, recipe.batch_size, recipe.seed, device)
        self._constants = normalization_constants(PUBLISHED[recipe.network].normalization, device)
        self._teacher = Teacher(recipe.teacher, device) if recipe.teacher else None
        self.steps = recipe.epochs * len(self._images)
        self.done, self.seconds = 0, 0.0
        self.history: list[dict[str, Any]] = []
        self._losses = torch.zeros((), device=device)

    @property
    def epoch(self) -> int:
        """Number of complete epochs."""
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
                target = self._teacher(pixels)
            soft = distillation_loss(logits, target, recipe.temperature)
            loss = (1 - recipe.distillation) * loss + recipe.distillation * soft
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
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
        """Return the top-1 of the averaged weights [%]."""
        right = 0
        for pixels, labels in zip(
            *(torch.split(t, 100) for t in (split.pixels, split.labels)), strict=True
        ):
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
        """Continue from a checkpoint.

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
        # The decay is low at first, or the random weights would stay in the average for long.
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


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True, fused=True
    )
