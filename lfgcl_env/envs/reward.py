"""What an environment rewards: one object per kind of score behind one small interface."""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, Protocol, TypeVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from lfgcl_env.edge.choices import closest
from lfgcl_env.edge.executors import Submits
from lfgcl_env.edge.named_code import import_named
from lfgcl_env.engine import InFlight, Shared
from lfgcl_env.envs.choice import Item, Keep, Scores, Screened, score_item
from lfgcl_env.images import LabelledImages, top1
from lfgcl_env.pruning import Evaluation
from lfgcl_env.pruning.problem import PruningProblem
from lfgcl_env.pruning.score.own_score import OwnScore, Score, name_of, ready

WORDS = ("similarity", "accuracy")
"""Rewards that have a name; others are functions."""

_Measured = TypeVar("_Measured")

OnScored = Callable[[Evaluation, float], None]
Flight = InFlight[Any, Item, Any]


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
        """Return a flight of strategies, which are looked up once they have arrived, and choices.

        A thread of the engine calls ``on_scored`` with the evaluation and the score of each
        strategy as soon as they are there.
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

        def arrived(item: Item, found: tuple[Scores | None, Evaluation | None]) -> None:
            if evaluation := _noted(item, found):
                self._problem.remember(evaluation)

        def finished(_: Item, found: tuple[Scores | None, Evaluation | None]) -> None:
            if evaluation := found[1]:
                on_scored(evaluation, evaluation.similarity)

        return InFlight(engine, _measure, self._problem.shared, arrived, finished)

    def score_network(self, network: nn.Module, strategy: ArrayLike) -> float:
        """Return the similarity of any network with a strategy's channels."""
        return self._problem.score_network(ready(network, self._problem.device), strategy)

    def remember(self, keep: Sequence[int], reward: float) -> None:
        """Do nothing: the problem remembers evaluations."""

    def forget(self) -> None:
        """Do nothing: the problem forgets its own evaluations."""


class FunctionReward:
    """Scores the network of a strategy, cut and repaired, by a function of it.

    Args:
        name: of the reward, for ``info`` and messages.
        function: called once for every strategy, see
            :class:`~lfgcl_env.pruning.score.own_score.OwnScore`.
        problem: what is pruned.
        images: the calibration images, (images, channels, height, width).
    """

    def __init__(self, name: str, function: Score, problem: PruningProblem, images: Tensor) -> None:
        self.name, self._problem = name, problem
        self._own = OwnScore(name, function, images, problem.device, problem.baseline.feeding)
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

        def arrived(
            item: Item, found: tuple[Scores | None, tuple[Evaluation, float] | None]
        ) -> None:
            if measured := _noted(item, found):
                evaluation, self._known[measured[0].keep] = measured
                self._problem.remember(evaluation)

        def finished(_: Item, found: tuple[Scores | None, tuple[Evaluation, float] | None]) -> None:
            if measured := found[1]:
                on_scored(*measured)

        return InFlight(engine, FunctionReward._measure, self._shared, arrived, finished)

    def score_network(self, network: nn.Module, strategy: ArrayLike) -> float:
        """Return the score of any network; the strategy does not matter.

        Raises:
            ValueError: if the function fails, or returns anything but a finite number.
        """
        return self._own(network)

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
        """This reward and its problem as workers load them, with what cheap scores take."""
        if self._problem.screens:
            self._problem.screen([])
        return Shared(self)

    def _measure(self, item: Item) -> tuple[Scores | None, tuple[Evaluation, float] | None]:
        return score_item(self._problem, item, self._measure_one)

    def _measure_one(self, keep: Keep) -> tuple[Evaluation, float]:
        evaluation = self._problem.measure(keep)  # workers remember nothing, and do not grow
        return evaluation, self.score_network(self._problem.compress(keep), keep)


def _measure(problem: PruningProblem, item: Item) -> tuple[Scores | None, Evaluation | None]:
    return score_item(problem, item, problem.measure)


def _noted(item: Item, found: tuple[Scores | None, _Measured | None]) -> _Measured | None:
    """Note the cheap scores that a worker found, and return the rest."""
    if isinstance(item, Screened):
        item.scores = found[0]
    return found[1]


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
