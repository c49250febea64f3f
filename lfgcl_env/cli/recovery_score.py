"""What ``lfgcl recover`` compares networks by: outputs, top-1, or the reward of the run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lfgcl_env.cli.targets import import_own
from lfgcl_env.edge.choices import closest
from lfgcl_env.edge.named_code import names_code, refuse_code
from lfgcl_env.envs.reward import WORDS
from lfgcl_env.images import LabelledImages, top1
from lfgcl_env.images.chunks import chunks_of
from lfgcl_env.networks import Baseline
from lfgcl_env.pruning.score.judge import Judge
from lfgcl_env.pruning.score.own_score import OwnScore, Score
from lfgcl_env.runs.recoveries import OUTPUTS, TOP1


@dataclass(frozen=True)
class RecoveryScore:
    """How networks are compared before and after.

    Attributes:
        reward: ``"similarity"`` of outputs, ``"accuracy"``, or the name of a function.
        function: the user's own; None for the others.
    """

    reward: str
    function: Score | None = None

    @property
    def name(self) -> str:
        """What the score is, for people and records."""
        return {"similarity": OUTPUTS, "accuracy": TOP1}.get(self.reward, self.reward)

    @property
    def needs_labels(self) -> bool:
        """Whether the images that are watched must have labels."""
        return self.reward == "accuracy"

    def on(
        self, baseline: Baseline, images: Tensor, labels: Tensor | None, device: torch.device
    ) -> Callable[[nn.Module], float]:
        """Return the score of networks on images, the higher the better.

        Args:
            baseline: that they were pruned from.
            images: normalised, (images, ...).
            labels: of them, (images,); for accuracy alone.
            device: where to compute.
        """
        if self.function is not None:
            return OwnScore(self.reward, self.function, images, device, baseline.feeding)
        if self.needs_labels:
            assert labels is not None
            test_set = LabelledImages(images, labels, "held out")
            return partial(top1, test_set=test_set, device=device)
        placed = [batch.to(device) for batch in chunks_of(images, 128)]
        judge = Judge(baseline.network.to(device), placed, baseline.outputs)
        baseline.network.cpu()

        def judged(network: nn.Module) -> float:
            score = judge(network.to(device))
            network.cpu()
            return score

        return judged


def find_score(
    arguments: Mapping[str, Any], run: Mapping[str, Any], folder: Path | None
) -> RecoveryScore:
    """Return the score that was asked for, else that of the run, else outputs.

    Training on labels is judged by them, unless the run has a function of its own or the command
    line says otherwise.

    Args:
        arguments: of the command: ``reward``, ``labels`` and ``trust``.
        run: arguments of the run; empty without one.
        folder: of the run, for messages.

    Raises:
        ValueError: if it is none, cannot be imported, or the run names code that is not trusted.
    """
    given = arguments["reward"]
    reward = given or run.get("reward", "similarity")
    if reward not in WORDS and not names_code(reward):
        if given:
            raise ValueError(
                f"unknown reward {given!r}: give one of {', '.join(WORDS)}, or module:function."
                f"{closest(given, WORDS)}"
            )
        raise ValueError(
            f"the reward of the run in {folder} was an object ({reward}) and is not kept: give "
            f"--reward module:function, or one of {', '.join(WORDS)}"
        )
    if not given:
        how = f"if it is yours, give --reward {reward}, or --trust"
        refuse_code(reward, f"the run in {folder}", how, trust=arguments["trust"])
        if reward == "similarity" and arguments["labels"]:
            reward = "accuracy"
    return RecoveryScore(reward, import_own(reward, "reward"))
