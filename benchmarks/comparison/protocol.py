"""What all methods on a network and a budget share: images, environments, repair, test.

Methods see the same calibration images. What they find is scored by one problem, delivered on the
same other unlabelled images (comparison/delivered.py), and tested on test images, which nothing
else sees. Methods that are rewarded with accuracy also see labelled training images, the same ones.
"""

import time
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import gymnasium as gym
import torch

import lfgcl_env
from lfgcl_env.images import LabelledImages, load_test_set, top1
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.repair.profiles import SequentialOptions
from lfgcl_env.search.record_evaluations import problem_of

LIGHT_IMAGES = 256
LIGHT = SequentialOptions(rows=16384, gauss_newton=0)
"""Repair before the tests of any_budget.py and transfer.py, on so many images."""
NOISE = "random"
"""In place of a data set: noise with random labels, to try a script where there is no data."""

ENVIRONMENTS = ("LFGCL", "AMC", "LFGCL-accuracy", "AMC-similarity", "AMC-accuracy")
"""LFGCL and AMC as they are, and environments that separate their two differences.

``AMC`` is as published: rewarded with accuracy, at most 80 % of a group pruned, and free to prune
more than the budget asks for. The others are global or layerwise, rewarded with similarity or
accuracy, and otherwise alike: any strategy can be reached, and the budget is spent.
"""

LABELLED = ("AMC", "LFGCL-accuracy", "AMC-accuracy")
"""Environments that read labels."""


class ComparisonProtocol:
    """What all runs on a network and budget share.

    Args:
        network: its name.
        images: calibration images.
        budget: fraction of the MACs that may remain, or a range.
        weights: of the network.
        data: ``"CIFAR10"``, ``"CIFAR100"`` or ``NOISE``.
        similarity: the reward without labels, by which all strategies are scored.
        labelled: held-out training images for rewards with accuracy.
        data_root: the folder of data sets; None for the usual one.
        download: fetch the data set if it is missing.

    Attributes:
        env: the global environment without labels.
        problem: its problem, which scores and repairs what every method found.
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
        self._others: dict[int, torch.Tensor] = {}
        self.env = self.environment("LFGCL")
        self.problem = problem_of(self.env)

    def environment(self, name: str, **changes: Any) -> "Timed":
        """Return one of ``ENVIRONMENTS``, made once.

        Args:
            name: of the environment.
            **changes: arguments that differ from those of other methods, such as
                ``criterion="l2"``.
        """
        key = (name, *sorted(changes.items()))
        if key not in self._made:
            self._made[key] = Timed(self._make(name, changes))
        return self._made[key]

    def _make(self, name: str, changes: dict[str, Any]) -> gym.Env[Any, Any]:
        kind, _, reward = name.partition("-")
        arguments = dict(self._arguments)
        if name in LABELLED:
            noise = self._data == NOISE
            arguments |= {"labelled": self._noise} if noise else {"num_labelled": self._labelled}
        if reward:
            arguments["reward"] = reward
            if kind == "AMC":
                arguments |= {"max_prune_ratio": 1.0, "spend_budget": True}
        return gym.make(f"{kind}-v0", **arguments | changes)

    @cached_property
    def test_set(self) -> LabelledImages:
        """Test images and labels."""
        baseline = self.problem.baseline
        if self._data == NOISE:
            return noise(baseline.input_shape, baseline.num_classes or 1, 100)
        return load_test_set(self._data, normalization=baseline.normalization, **self._places)

    @cached_property
    def _noise(self) -> LabelledImages:
        baseline = self.problem.baseline
        return noise(baseline.input_shape, baseline.num_classes or 1, self._labelled)

    def repaired_top1(self, keep: Sequence[int]) -> float:
        """Return the top-1 of a strategy after a light sequential repair [%]."""
        return self.top1(keep, self.problem, LIGHT_IMAGES, LIGHT)

    def top1(
        self, keep: Sequence[int], problem: PruningProblem, images: int, options: SequentialOptions
    ) -> float:
        """Return the top-1 of a strategy after sequential repair [%].

        Args:
            keep: channels kept in every group.
            problem: what cuts the network.
            images: how many the repair sees.
            options: of the repair.
        """
        key = (problem.criterion, problem.repair, images, options, *keep)
        if key not in self._tested:
            network, _ = problem.finish(keep, self._other_images(images), options)
            self._tested[key] = round(top1(network, self.test_set), 2)
        return self._tested[key]

    def _other_images(self, count: int) -> torch.Tensor:
        if count not in self._others:
            self._others[count] = self.env.get_wrapper_attr("other_images")(count)
        return self._others[count]


shared_protocol = lru_cache(maxsize=1)(ComparisonProtocol)
"""A process's last protocol, which runs on the same network and budget share."""


class Timed(gym.Wrapper[Any, Any, Any, Any]):
    """Adds up the time spent in the environment's steps, in ``seconds``."""

    seconds = 0.0

    def step(self, action: Any) -> Any:
        """Step, and measure the time."""
        began = time.perf_counter()
        result = self.env.step(action)
        self.seconds += time.perf_counter() - began
        return result


def noise(shape: Sequence[int], classes: int, count: int) -> LabelledImages:
    """Return images of noise with random labels, the same at every call."""
    draws = torch.Generator().manual_seed(1)
    images = torch.randn(count, *shape, generator=draws)
    labels = torch.randint(classes, (count,), generator=draws)
    return LabelledImages(images, labels, "noise")
