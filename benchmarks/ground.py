"""What all contestants on a network and a budget share: images, environments, repair, test.

Contestants see the same calibration images. What they find is scored by one problem, repaired
sequentially on the same other unlabelled images, and tested on test images, which nothing else
sees. Those rewarded with accuracy also see labelled training images, the same ones.
"""

import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import gymnasium as gym
import torch
from lfgcl_env.envs.accuracy import StrategyAccuracy

import lfgcl_env
from lfgcl_env.images import LabelledImages, load_held_out, load_test_set, top1
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.search.record_evaluations import problem_of
from lfgcl_env.search.shortlist import QUICK

REPAIR_IMAGES = 256
NOISE = "random"
"""Instead of a data set: noise, labelled by chance, to try a script where there is no data."""

ENVIRONMENTS = ("LFGCL", "AMC", "LFGCL-accuracy", "AMC-similarity", "AMC-accuracy")
"""LFGCL and AMC as they are, and what tells their two differences apart.

``AMC`` is as published: rewarded with accuracy, at most 80 % of a group pruned, and free to prune
more than it has to. The others are global or layerwise, rewarded with similarity or accuracy, and
otherwise alike: any strategy can be reached, and the budget is spent.
"""

LABELLED = ("AMC", "LFGCL-accuracy", "AMC-accuracy")
"""Those that read labels."""


class Ground:
    """What all runs on a network and budget share.

    Args:
        network: its name.
        images: calibration images.
        budget: fraction of the MACs that may remain, or a range.
        weights: of the network.
        data: ``"CIFAR10"``, ``"CIFAR100"`` or ``NOISE``.
        similarity: that contestants without labels are rewarded with, and all are scored by.
        labelled: held-out training images for those that are rewarded with accuracy.
        data_root: the folder of data sets; None for where they usually are.
        download: fetch the data set if it is missing.

    Attributes:
        env: the global environment without labels.
        problem: its problem, which scores and repairs what everybody found.
        repair_images: for sequential repair.
    """

    def __init__(
        self,
        network: str,
        images: int,
        budget: float | tuple[float, ...],
        *,
        weights: str = "published",
        data: str = "CIFAR10",
        similarity: str = "discounted_mse",
        labelled: int = 5000,
        data_root: str | None = None,
        download: bool = False,
    ) -> None:
        assert lfgcl_env  # registers the environments
        self.network, self.budget = network, budget
        self._data, self._labelled = data, labelled
        self._arguments: dict[str, Any] = {
            "network": network,
            "weights": weights,
            "images": data,
            "num_images": images,
            "budget": budget,
            "similarity": similarity,
            "data_root": data_root,
            "download": download,
        }
        self._places: dict[str, Any] = {"root": data_root, "download": download}
        self._made: dict[tuple[Any, ...], Timed] = {}
        self._tested: dict[tuple[Any, ...], float] = {}
        self.env = self.environment("LFGCL")
        self.problem = problem_of(self.env)
        found = self.env.unwrapped.other_images(REPAIR_IMAGES)  # type: ignore[attr-defined]
        self.repair_images: torch.Tensor = found

    def environment(self, name: str, **changes: Any) -> "Timed":
        """One of ``ENVIRONMENTS``, made once.

        Args:
            name: of the environment.
            **changes: arguments that differ from everybody else's, such as ``criterion="l2"``.
        """
        key = (name, *sorted(changes.items()))
        if key not in self._made:
            self._made[key] = Timed(self._make(name, changes))
        return self._made[key]

    def _make(self, name: str, changes: dict[str, Any]) -> gym.Env[Any, Any]:
        kind, _, reward = name.partition("-")
        if kind == "AMC":
            noise = name in LABELLED and self._data == NOISE
            labelled = {"labelled": self.labelled} if noise else {"num_labelled": self._labelled}
            if reward:
                changes = {
                    "reward": reward,
                    "max_prune_ratio": 1.0,
                    "spend_budget": True,
                    **changes,
                }
            return gym.make("AMC-v0", **self._arguments, **labelled, **changes)
        if reward == "accuracy":
            return AccuracyReward(self.environment(kind, **changes).env, self.labelled)
        return gym.make("LFGCL-v0", **self._arguments, **changes)

    @cached_property
    def labelled(self) -> LabelledImages:
        """Held-out training images with labels: those of the AMC environment."""
        baseline = self.problem.baseline
        if self._data == NOISE:
            return _noise(baseline.input_shape, baseline.num_classes, self._labelled)
        return load_held_out(
            self._data,
            self._labelled,
            used=self.problem.images,
            shape=baseline.input_shape,
            normalization=baseline.normalization,
            **self._places,
        )

    @cached_property
    def _test(self) -> LabelledImages:
        baseline = self.problem.baseline
        if self._data == NOISE:
            return _noise(baseline.input_shape, baseline.num_classes, 100)
        return load_test_set(self._data, normalization=baseline.normalization, **self._places)

    def test_set(self) -> LabelledImages:
        """Test images and labels."""
        return self._test

    def repaired_top1(
        self, keep: Sequence[int], test: LabelledImages, problem: PruningProblem | None = None
    ) -> float:
        """Top-1 of a strategy after sequential repair [%].

        Args:
            keep: channels kept in every group.
            test: what it is tested on.
            problem: what cuts the network, if it is not the ground's own.
        """
        problem = problem or self.problem
        key = (problem.criterion, problem.repair, *keep)
        if key not in self._tested:
            network, _ = problem.finish(keep, self.repair_images, QUICK)
            self._tested[key] = round(top1(network, test), 2)
        return self._tested[key]


class Timed(gym.Wrapper[Any, Any, Any, Any]):
    """Adds up the time in the environment."""

    seconds = 0.0

    def step(self, action: Any) -> Any:
        """Step, and take the time."""
        began = time.perf_counter()
        result = self.env.step(action)
        self.seconds += time.perf_counter() - began
        return result


class AccuracyReward(gym.Wrapper[Any, Any, Any, Any]):
    """The global environment rewarded with labelled accuracy, as AMC's is.

    Agents read the similarity from ``info`` or the reward; both are the accuracy here, in [0, 1].

    Args:
        env: a global environment with episodes of one step.
        labelled: images and labels that the accuracy is measured on.
    """

    def __init__(self, env: gym.Env[Any, Any], labelled: LabelledImages) -> None:
        super().__init__(env)
        self._accuracy = StrategyAccuracy(problem_of(env), labelled)

    def step(self, action: Any) -> Any:
        """Step, and exchange the reward."""
        observation, _, terminated, truncated, info = self.env.step(action)
        accuracy = self._accuracy(info["keep"])
        return observation, accuracy, terminated, truncated, info | {"similarity": accuracy}

    def forget(self) -> None:
        """Forget all scores, accuracies among them."""
        self.env.get_wrapper_attr("forget")()
        self._accuracy.forget()


def _noise(shape: Sequence[int], classes: int, count: int) -> LabelledImages:
    draws = torch.Generator().manual_seed(1)
    images = torch.randn(count, *shape, generator=draws)
    labels = torch.randint(classes, (count,), generator=draws)
    return LabelledImages(images, labels, "noise")
