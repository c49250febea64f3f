"""What an environment rewards: one object per kind of score behind one small interface."""

import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from lfgcl_env.edge.choices import closest
from lfgcl_env.edge.executors import Submits
from lfgcl_env.edge.named_code import import_named
from lfgcl_env.edge.schema import short
from lfgcl_env.engine import InFlight, Shared
from lfgcl_env.images import LabelledImages, top1
from lfgcl_env.networks.prepared import settle
from lfgcl_env.pruning import Evaluation
from lfgcl_env.pruning.problem import PruningProblem

WORDS = ("similarity", "accuracy")
"""Rewards that have a name; others are functions."""

Score = Callable[[nn.Module, Tensor], float]
OnScored = Callable[[Evaluation, float], None]
Keep = tuple[int, ...]
Flight = InFlight[Any, Keep, Any]


class StrategyReward(Protocol):
    """The score of strategies, and of other networks with a strategy's channels.

    Attributes:
        name: stands in ``info`` and in records.
    """

    name: str

    def score(self, strategy: ArrayLike) -> float:
        """Return the score of a strategy; one scored before is looked up."""

    def unknown(self, strategies: Iterable[ArrayLike]) -> list[Keep]:
        """Return those strategies that :meth:`score` would compute, each once."""

    def in_flight(self, engine: Submits, on_scored: OnScored) -> Flight:
        """Return a flight of strategies, which are looked up once they have arrived.

        A thread of the engine calls ``on_scored`` with the evaluation and the score of each as soon
        as they are there.
        """

    def score_network(self, network: nn.Module, strategy: ArrayLike) -> float:
        """Return the score of any network with a strategy's channels."""

    def remember(self, keep: Sequence[int], reward: float) -> None:
        """Store a score that was measured before."""

    def forget(self) -> None:
        """Drop all stored scores."""


class SimilarityReward:
    """Scores by the similarity of features, which the problem computes and remembers.

    Args:
        problem: what is pruned.
    """

    name = "similarity"

    def __init__(self, problem: PruningProblem) -> None:
        self._problem = problem

    def score(self, strategy: ArrayLike) -> float:
        """Return the similarity of a strategy's network to the baseline."""
        return self._problem.evaluate(strategy).similarity

    def unknown(self, strategies: Iterable[ArrayLike]) -> list[Keep]:
        """Return those strategies that the problem does not remember, each once."""
        return self._problem.unknown(strategies)

    def in_flight(self, engine: Submits, on_scored: OnScored) -> Flight:
        """Return a flight of strategies, which the problem remembers once they have arrived."""

        def arrived(_: Keep, evaluation: Evaluation) -> None:
            self._problem.remember(evaluation)

        def finished(_: Keep, evaluation: Evaluation) -> None:
            on_scored(evaluation, evaluation.similarity)

        return InFlight(engine, PruningProblem.measure, self._problem.shared, arrived, finished)

    def score_network(self, network: nn.Module, strategy: ArrayLike) -> float:
        """Return the similarity of any network with a strategy's channels."""
        return self._problem.score_network(_ready(network, self._problem.device), strategy)

    def remember(self, keep: Sequence[int], reward: float) -> None:
        """Do nothing: the problem remembers evaluations."""

    def forget(self) -> None:
        """Do nothing: the problem forgets its own evaluations."""


class FunctionReward:
    """Scores the network of a strategy, cut and repaired, by a function of it.

    Args:
        name: of the reward, for ``info`` and messages.
        function: takes the network, in evaluation mode on the problem's device, and the
            calibration images; returns a finite number, the higher the better. It is called once
            for every strategy, without gradients, and must not depend on earlier calls.
        problem: what is pruned.
        images: the calibration images, (images, channels, height, width). Several inputs reach the
            function as they were given: a tuple, or a dictionary.
    """

    def __init__(self, name: str, function: Score, problem: PruningProblem, images: Tensor) -> None:
        self.name = name
        self._function, self._problem = function, problem
        # A copy, so that a function that writes to its inputs cannot change the problem's images.
        copied = images.detach().to(problem.device, copy=True)
        packing = problem.baseline.packing
        self._images: Any = copied if packing is None else packing.given(copied)
        self._known: dict[tuple[int, ...], float] = {}

    def score(self, strategy: ArrayLike) -> float:
        """Return the score of a strategy's network; one scored before is looked up."""
        keep = self._problem.evaluate(strategy).keep
        if keep not in self._known:
            self._known[keep] = self.score_network(self._problem.compress(keep), keep)
        return self._known[keep]

    def unknown(self, strategies: Iterable[ArrayLike]) -> list[Keep]:
        """Return those strategies whose networks the function was not called with, each once."""
        keeps = (self._problem.network.check_strategy(one) for one in strategies)
        unique = dict.fromkeys(tuple(keep.tolist()) for keep in keeps)
        return [keep for keep in unique if keep not in self._known]

    def in_flight(self, engine: Submits, on_scored: OnScored) -> Flight:
        """Return a flight of strategies, whose networks workers call the function with."""

        def arrived(keep: Keep, found: tuple[Evaluation, float]) -> None:
            evaluation, score = found
            self._problem.remember(evaluation)
            self._known[keep] = score

        def finished(_: Keep, found: tuple[Evaluation, float]) -> None:
            on_scored(*found)

        return InFlight(engine, FunctionReward._measure, self._shared, arrived, finished)

    def score_network(self, network: nn.Module, strategy: ArrayLike) -> float:
        """Return the score of any network; the strategy does not matter.

        Raises:
            ValueError: if the function fails, or returns anything but a finite number.
        """
        ready = _ready(network, self._problem.device)
        try:
            with torch.no_grad():
                value = self._function(ready, self._images)
        except Exception as error:  # somebody's own function may raise anything
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise ValueError(
                f"reward {self.name!r} failed ({short(what)}): it takes a network and its "
                "calibration images and returns a number"
            ) from error
        return _finite(value, self.name)

    def remember(self, keep: Sequence[int], reward: float) -> None:
        """Store a score that was measured before."""
        self._known[tuple(int(count) for count in keep)] = float(reward)

    def forget(self) -> None:
        """Drop all stored scores."""
        self._known.clear()
        vars(self).pop("_shared", None)  # workers forget with it

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what workers were sent, which is this process's to remove."""
        return {name: value for name, value in vars(self).items() if name != "_shared"}

    @cached_property
    def _shared(self) -> "Shared[FunctionReward]":
        """This reward and its problem as workers load them."""
        return Shared(self)

    def _measure(self, keep: tuple[int, ...]) -> tuple[Evaluation, float]:
        evaluation = self._problem.measure(keep)  # workers remember nothing, and do not grow
        return evaluation, self.score_network(self._problem.compress(keep), keep)


class Accuracy:
    """Top-1 accuracy on labelled images as a fraction, in [0, 1]; AMC's reward.

    Args:
        labelled: images and labels.
        device: where to compute.
    """

    def __init__(self, labelled: LabelledImages, device: torch.device) -> None:
        self._labelled, self._device = labelled, device

    def __call__(self, network: nn.Module, images: Tensor) -> float:
        """Return the accuracy of a network; the calibration images have no labels."""
        return top1(network, self._labelled, device=self._device) / 100


def check_reward(reward: str | Score) -> str | Score:
    """Return a reward if it is a known word or a function; ``"module:function"`` is imported.

    Raises:
        ValueError: if it is neither; the message names the choices and the nearest.
    """
    if not isinstance(reward, str) or reward in WORDS:
        return reward
    if ":" in reward:
        import_named(reward, "reward")
        return reward
    raise ValueError(
        f"unknown reward {reward!r}: choose one of {', '.join(WORDS)}, 'module:function', or pass "
        f"a function.{closest(reward, WORDS)}"
    )


def make_reward(
    reward: str | Score,
    problem: PruningProblem,
    images: Tensor,
    labelled: LabelledImages | None,
) -> StrategyReward:
    """Make the object that scores strategies.

    Args:
        reward: checked by :func:`check_reward`.
        problem: what is pruned.
        images: the calibration images.
        labelled: for ``"accuracy"``.
    """
    if reward == "similarity":
        return SimilarityReward(problem)
    if reward == "accuracy":
        assert labelled is not None
        return FunctionReward("accuracy", Accuracy(labelled, problem.device), problem, images)
    if isinstance(reward, str):
        return FunctionReward(reward, import_named(reward, "reward"), problem, images)
    return FunctionReward(name_of(reward), reward, problem, images)


def name_of(function: Callable[..., Any]) -> str:
    """Return ``"module:name"`` of a function, or of the type of another callable.

    >>> name_of(math.fsum)
    'math:fsum'
    """
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def _ready(network: nn.Module, device: torch.device) -> nn.Module:
    """Return a network in evaluation mode on a device: itself if it is so, else a copy."""
    if not isinstance(network, nn.Module):
        raise ValueError(f"only a torch.nn.Module can be scored, got {short(network)}")
    return settle(network, device)


def _finite(value: object, name: str) -> float:
    """Return a number, or a tensor or array that holds a single one, as a float."""
    single = isinstance(value, Tensor | np.ndarray) and math.prod(value.shape) == 1
    number: Any = value.item() if single else value  # type: ignore[attr-defined]
    if isinstance(number, numbers.Real) and not isinstance(number, bool):
        with suppress(OverflowError):  # a whole number beyond floats
            if math.isfinite(number):
                return float(number)
    raise ValueError(f"reward {name!r} must return a finite number, got {short(value)}")
