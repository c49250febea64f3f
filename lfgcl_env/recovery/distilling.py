"""The steps of a recovery: reproducible, and stoppable at any of them."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lfgcl_env.edge.files import write_beside
from lfgcl_env.networks.copying import copy_network, forget
from lfgcl_env.networks.draws import own_draws
from lfgcl_env.networks.outputs import class_scores
from lfgcl_env.recovery.batches import Batches
from lfgcl_env.recovery.centring import recentre
from lfgcl_env.recovery.learned_outputs import run_on
from lfgcl_env.recovery.learning_mode import TrainingMode
from lfgcl_env.recovery.loss import Distillation
from lfgcl_env.recovery.recovery_options import RecoveryOptions

RISE = 0.1
"""Part of the steps in which a one-cycle learning rate rises."""

DROPS = (0.6, 0.8)
"""Parts of the steps after which a learning rate that falls in steps is a tenth."""

STATE = ("options", "network", "average", "optimizer", "done")
"""What :meth:`Training.save` writes and :meth:`Training.load` reads."""

_DECAYING = (nn.Linear, nn.modules.conv._ConvNd)

_CENTRED = 32
"""Batches that BatchNorm statistics are measured on."""


class Training:
    """Train a pruned network, one step after the other.

    A step depends on the options, its number and what a checkpoint holds, so that a recovery that
    was stopped gives the network of one that was not, on a CPU to the bit.

    Args:
        baseline: in evaluation mode.
        network: the pruned one; not changed.
        images: to train on, unlabelled; on the CPU or the device.
        options: see there.
        device: where to train.
        labels: int64, (images,): the loss is the cross-entropy with these instead, and images are
            not mixed.

    Attributes:
        done: steps taken.
        steps: of the whole recovery.
    """

    def __init__(
        self,
        baseline: nn.Module,
        network: nn.Module,
        images: Tensor,
        options: RecoveryOptions,
        device: torch.device,
        labels: Tensor | None = None,
    ) -> None:
        if labels is not None:
            options = replace(options, mixup=0.0)
        self.options, self._device = options, device
        self._bf16 = options.precision == "bf16" or (
            options.precision == "auto" and _gains_by_bf16(device)
        )
        self._batches, self._labels = Batches(images, options), labels
        self._network = copy_network(network).to(device).eval()
        self._frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
        baseline = copy_network(baseline).to(device).eval().requires_grad_(False)
        example = self._batches(0, 0, device)[:3]
        self._loss: Distillation | None = None
        if labels is None:
            self._loss = Distillation(
                baseline,
                self._network,
                example,
                temperature=options.temperature,
                features=options.features,
            )
        else:
            run_on(example, self._network, "the network")
        self._layout = _layout((self._network, baseline), example)
        first = min(len(self._batches), _CENTRED)
        recentre(self._network, (self._batch(0, position) for position in range(first)))
        self._average = copy_network(self._network)
        self._mode = TrainingMode(self._network, example)
        self._optimizer = _optimizer(self._network, options)
        self.steps = options.epochs * len(self._batches)
        self.done = 0

    @property
    def mapped(self) -> str | None:
        """The module whose maps are compared, or None."""
        return None if self._loss is None else self._loss.place

    @property
    def epoch_ends(self) -> bool:
        """Whether the last step was an epoch's last."""
        return self.done % len(self._batches) == 0

    def step(self) -> float:
        """Take a step, and return its loss.

        Raises:
            FloatingPointError: if the loss is not finite.
            ValueError: if no gradient comes to the parameters.
        """
        epoch, position = divmod(self.done, len(self._batches))
        batch = self._batch(epoch, position)
        rate = _rate(self.options, (self.done + 0.5) / self.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._mode.enter()
        with (
            own_draws(self.options.seed + self.done, self._device),  # whatever a network draws
            torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16),
        ):
            loss = self._loss_of(batch, self._batches.chosen(epoch, position))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the loss is {value} in step {self.done + 1}: give a lower learning_rate"
            )
        if not loss.requires_grad:
            raise ValueError(
                "no parameter that is trained reaches the outputs: the network computes them "
                "under torch.no_grad, or detaches them"
            )
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._network.parameters(), self.options.clip)
        self._optimizer.step()
        self._mode.leave()
        self._update_average()
        self.done += 1
        return value

    def network(self) -> nn.Module:
        """Return the averaged network, on the CPU in evaluation mode."""
        averaged = copy_network(self._average).cpu()
        _lay_out(averaged, torch.contiguous_format)
        for name, parameter in averaged.named_parameters():
            parameter.requires_grad_(name not in self._frozen)
        return averaged

    def save(self, path: Path, **facts: Any) -> None:
        """Write a checkpoint, whole or not at all."""
        content = {
            "options": asdict(self.options),
            "network": self._network.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "done": self.done,
            **facts,
        }
        write_beside(path, lambda partial: torch.save(content, partial))

    def load(self, content: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: if it was made with other options.
        """
        ours = asdict(self.options)
        different = [
            f"{name}={content['options'].get(name)!r}, not {value!r}"
            for name, value in ours.items()
            if content["options"].get(name) != value
        ]
        if different:
            raise ValueError(f"the checkpoint was made with {', '.join(different)}")
        self._network.load_state_dict(content["network"])
        self._average.load_state_dict(content["average"])
        self._optimizer.load_state_dict(content["optimizer"])
        self.done = int(content["done"])

    def _loss_of(self, batch: Tensor, chosen: Tensor) -> Tensor:
        if self._loss is not None:
            return self._loss(batch)
        assert self._labels is not None
        labels = self._labels[chosen].to(self._device)
        return F.cross_entropy(class_scores(self._network(batch)).float(), labels)

    @torch.no_grad()
    def _update_average(self) -> None:
        # Low at first: the start would stay in the average for long.
        share = 1 - min(self.options.ema, (1 + self.done) / (10 + self.done))
        pairs = (
            *zip(self._average.parameters(), self._network.parameters(), strict=True),
            *zip(self._average.buffers(), self._network.buffers(), strict=True),
        )
        for average, own in pairs:  # each once, whatever is shared
            if average.is_floating_point():
                average.lerp_(own, share)

    def _batch(self, epoch: int, position: int) -> Tensor:
        batch = self._batches(epoch, position, self._device)
        return batch.contiguous(memory_format=self._layout)


def _gains_by_bf16(device: torch.device) -> bool:
    """Return whether a device multiplies matrices of bfloat16 by units made for it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Private, and missing in some builds. Without such units autocast is slower than float32.
    units = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, unit, lambda: False)() for unit in units)


def _rate(options: RecoveryOptions, progress: float) -> float:
    """Return the learning rate at a part of all steps."""
    if options.schedule == "steps":
        return options.learning_rate * 0.1 ** sum(progress >= part for part in DROPS)
    rise = RISE if options.schedule == "one-cycle" else 0.0
    if progress < rise:
        return options.learning_rate * progress / rise
    return options.learning_rate * (1 + math.cos(math.pi * (progress - rise) / (1 - rise))) / 2


def _layout(networks: Sequence[nn.Module], example: Tensor) -> torch.memory_format:
    """Lay networks out as devices convolve fastest, unless one flattens images with ``view``."""
    if example.dim() != 4:
        return torch.contiguous_format
    layout = torch.channels_last
    for network in networks:
        _lay_out(network, layout)
    try:
        with torch.no_grad():
            for network in networks:
                forget(network)(example.contiguous(memory_format=layout))
    except RuntimeError:
        layout = torch.contiguous_format
        for network in networks:
            _lay_out(network, layout)
    return layout


def _lay_out(network: nn.Module, layout: torch.memory_format) -> None:
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def _optimizer(network: nn.Module, options: RecoveryOptions) -> torch.optim.SGD:
    """Return the optimiser of what is not frozen.

    Raises:
        ValueError: if all parameters are frozen.
    """
    layers = [m for m in network.modules() if isinstance(m, _DECAYING)]
    decaying = {id(module.weight) for module in layers}
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError("all parameters of the network are frozen, so there is nothing to train")
    groups = [
        {
            "params": [p for p in trained if id(p) in decaying],
            "weight_decay": options.weight_decay,
        },
        {"params": [p for p in trained if id(p) not in decaying], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=options.learning_rate, momentum=options.momentum, nesterov=options.momentum > 0,
    )  # fmt: skip
