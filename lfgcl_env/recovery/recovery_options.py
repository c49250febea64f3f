"""How a pruned network is trained again."""

from dataclasses import dataclass
from typing import Any

SCHEDULES = ("one-cycle", "cosine", "steps")
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class RecoveryOptions:
    """Everything that decides a recovery, except networks, images and the machine.

    The loss is that of distillation: the Kullback-Leibler divergence of softened outputs (Hinton et
    al., 2015), or for outputs without classes the squared error relative to their variance, plus
    the same error of the last maps before the outputs. Student and baseline see the same crops,
    flips and mixtures (Beyer et al., Knowledge distillation: a good teacher is patient and
    consistent, CVPR 2022).

    Attributes:
        epochs: times that every image is seen.
        epoch_images: images that an epoch has at least; where there are fewer, each is seen several
            times in it, in other views.
        batch_size: images of a step.
        learning_rate: the highest one, of SGD with Nesterov momentum.
        momentum: of SGD.
        weight_decay: of the weights of convolutions and linear layers; nothing else has one.
        schedule: ``one-cycle``: up for a tenth of the steps, and down to 0 along a cosine;
            ``cosine``: down to 0 from the start; ``steps``: a tenth of it after six tenths of the
            steps, and a hundredth after eight.
        temperature: that logits are divided by.
        features: weight of the maps' error; 0 for outputs alone.
        mixup: largest share of another image that is mixed into an image, drawn evenly from 0 to
            it; 0 for none (Zhang et al., mixup, ICLR 2018).
        crop: pixels that an image is shifted by at most, in parts of its side; 0 for none.
        flip: whether every second image is mirrored.
        clip: largest norm of a step's gradient; longer ones are shortened to it.
        ema: decay of the moving average of weights and statistics, per step.
        precision: ``fp32``; ``bf16`` for autocast; ``auto`` for the latter where the device
            computes with it faster: CUDA devices with bfloat16, processors with AMX or
            AVX512-BF16.
        seed: of order, crops, flips and mixtures.
    """

    epochs: int = 10
    epoch_images: int = 4096
    batch_size: int = 128
    learning_rate: float = 0.005
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "one-cycle"
    temperature: float = 4.0
    features: float = 1.0
    mixup: float = 0.5
    crop: float = 0.125
    flip: bool = True
    clip: float = 5.0
    ema: float = 0.998
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: for one that is out of its range, or unknown.
        """
        for name, least in (("epochs", 1), ("epoch_images", 1), ("batch_size", 2), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number, at least {least}, got {value!r}")
        ranges = {
            "learning_rate": (0, 10), "momentum": (0, 1), "weight_decay": (0, 1),
            "temperature": (0, 100), "features": (0, 100), "mixup": (0, 0.5), "crop": (0, 0.5),
            "clip": (0, 1e6), "ema": (0, 1),
        }  # fmt: skip
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not least <= value <= most:
                raise ValueError(f"{name} must be from {least} to {most}, got {value!r}")
        for name in ("learning_rate", "temperature", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)!r}")
        for name, known in (("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )


def with_labels(**changes: Any) -> RecoveryOptions:
    """Return the options of training with labels, to compare with what others publish.

    They are those that Fang et al. (DepGraph, CVPR 2023) fine-tune CIFAR's networks with
    (benchmarks/main.py of torch-pruning): SGD at 0.01, a tenth and a hundredth of it after 60 and
    80 % of the epochs, weight decay 5e-4, batches of 128, crops and flips, nothing averaged. Theirs
    are 100 epochs. What differs: Nesterov's momentum, no decay of BatchNorm and biases, and crops
    are filled by reflection, as in all recoveries.

    Args:
        changes: to these, see :class:`RecoveryOptions`.

    >>> with_labels(epochs=100).schedule
    'steps'
    """
    recipe = {"learning_rate": 0.01, "schedule": "steps", "mixup": 0.0, "ema": 0.0, "clip": 1e6}
    return RecoveryOptions(**{**recipe, **changes})
