"""Scoring of strategies: groups, budget, repair and similarity of one network, made once."""

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from lfgcl_env.config import (
    LatencyConfig,
    ProblemConfig,
    StructureConfig,
    complete,
    options,
    part,
    signature,
)
from lfgcl_env.edge.choices import check_choice
from lfgcl_env.edge.executors import Submits
from lfgcl_env.edge.one_at_a_time import OneAtATime, alone
from lfgcl_env.engine import Shared, check_gpus, spread
from lfgcl_env.images.chunks import chunks_of, first_of
from lfgcl_env.networks import Baseline
from lfgcl_env.networks.copying import copy_network
from lfgcl_env.networks.several_inputs import (
    Several,
)
from lfgcl_env.pruning.budget.tolerance import allowed_cost
from lfgcl_env.pruning.checks import (
    check_outputs,
    check_ratios,
    split_images,
)
from lfgcl_env.pruning.criteria.criterion import Elimination, Scores
from lfgcl_env.pruning.criteria.ranking import Ranking
from lfgcl_env.pruning.evaluation import Evaluation
from lfgcl_env.pruning.inputs import fitting, load_module
from lfgcl_env.pruning.memory import Memory, check_evaluation
from lfgcl_env.pruning.moments.second_moments import Moments
from lfgcl_env.pruning.registries import CHOICES
from lfgcl_env.pruning.repair.interface import REPAIRS, Repair
from lfgcl_env.pruning.score.scorer import Scorer
from lfgcl_env.pruning.score.screen import SCREENED, Screen
from lfgcl_env.pruning.structure.cost import Cost
from lfgcl_env.pruning.structure.prunable_network import PrunableNetwork

_POSITIONAL = [
    inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kind)
    for name, kind in (("network", nn.Module | Baseline), ("images", Tensor | Several))
]
_POSITIONAL.append(
    inspect.Parameter(
        "score_images",
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=None,
        annotation=Tensor | Several | None,
    )
)


class ScoredProblem(OneAtATime):
    """What :class:`PruningProblem` scores strategies by; see there for arguments and attributes."""

    __signature__: ClassVar[inspect.Signature] = signature(ProblemConfig, _POSITIONAL)

    def __init__(
        self,
        network: nn.Module | Baseline,
        images: Tensor | Several,
        score_images: Tensor | Several | None = None,
        **config: Unpack[ProblemConfig],
    ) -> None:
        chosen = complete(ProblemConfig, config, "the problem")
        self.repair = check_choice(chosen["repair"], REPAIRS, "repair")
        if chosen["similarity"] is None:
            asked = chosen["features"] is not None  # as after any other repair, then
            chosen["similarity"] = (Repair if asked else REPAIRS[self.repair]).similarity
        for name, choices in CHOICES.items():
            check_choice(chosen[name], choices, name)  # type: ignore[literal-required]
        self.criterion = chosen["criterion"]
        self.similarity = str(chosen["similarity"])
        self.budget_metric = chosen["budget_metric"]
        self.device = torch.device(chosen["device"])
        self._config = chosen
        self._repair = REPAIRS[self.repair]()
        if not isinstance(network, Baseline):
            network = load_module(network, images)
        images = fitting(network, images, "calibration")
        check_outputs(network, self.similarity, chosen["features"])
        # Before what takes longer; of a copy, which others' calls do not disturb.
        self._repair.check(copy_network(network.network))

        self.network = PrunableNetwork(
            network, part(LatencyConfig, chosen), **part(StructureConfig, chosen)
        )
        self.baseline = self.network.baseline
        self.groups, self.channels = self.network.groups, self.network.channels
        self.lowest = self.network.rounding.fewest
        self.layers, self.excluded = self.network.layers, self.network.excluded
        self.baseline_cost = self.network.baseline_cost
        self._projection = self.network.projection(self.budget_metric)
        self.budget = self.check_budget(chosen["budget"])  # type: ignore[arg-type]
        self.candidate = self.network.candidate(self.device)
        self.batches = self._place(images, large=self._repair.large_batches)
        self.score_batches = self.batches
        if score_images is not None:
            scored = fitting(network, score_images, "score")
            self.score_batches = self._place(scored, large=False)
        self._ranking = Ranking(self.network, self.batches, self.criterion, chosen["seed"])
        self.scorer = Scorer(
            self.network, self.candidate, self.score_batches, self.similarity, chosen["features"]
        )
        self._repair.prepare(self.network, self.candidate, self.batches, lambda: self.moments)
        halves = np.maximum(np.maximum(1, self.channels // 2), self.network.lowest)
        self.scorer.check_places(self.candidate, self.kept_channels(halves))
        self._memory = Memory(self._score)
        self._screen: Screen | None = None

    @property
    def lowest_budget(self) -> float:
        """The smallest budget that can be met, as a fraction of the baseline's cost."""
        return self._projection.lowest

    @property
    def latency_table(self) -> str | None:
        """The checksum of the table that a budget of latency is counted with; else None."""
        if self.budget_metric != "latency":
            return None
        return self.network.latency.table.checksum

    @property
    def images(self) -> int:
        """How many calibration images there are."""
        return sum(len(batch) for batch in self.batches)

    @property
    def score_images(self) -> int:
        """How many images pruned networks are scored on."""
        return sum(len(batch) for batch in self.score_batches)

    @property
    def screens(self) -> bool:
        """Whether :meth:`screen` costs far less than :meth:`evaluate`."""
        return self._repair.costly

    @property
    def screened(self) -> int:
        """How many distinct strategies were screened."""
        return 0 if self._screen is None else len(self._screen)

    @property
    def moments(self) -> dict[str, Moments]:
        """Second moments of the inputs of every layer that a group feeds, by layer name."""
        return self._ranking.moments

    @property
    def eliminations(self) -> dict[str, Elimination]:
        """Backward elimination of every group's channels, by group name: order and error curve."""
        return self._ranking.eliminations

    def check_budget(self, budget: float) -> float:
        """Return ``budget`` as a float, or raise a ValueError that names the range in reach."""
        return self._projection.check_budget(budget)

    def project(self, prune_ratios: ArrayLike, budget: float | None = None) -> NDArray[np.int64]:
        """Turn prune ratios in [0, 1] into the strategy on the budget that shifts all alike.

        Returns:
            int64, (groups,), within all limits. It never costs more than the budget (None: the
            problem's own), and the next allowed count of any group would.

        Raises:
            ValueError: for a wrong shape, NaN, ratios outside [0, 1], or an unreachable budget.
        """
        ratios = check_ratios(prune_ratios, len(self.groups))
        value = self.budget if budget is None else self.check_budget(budget)
        return self._projection(ratios, value)

    def cost(self, strategy: ArrayLike) -> Cost:
        """Count MACs and parameters of a strategy, in closed form."""
        return self.network.cost(strategy)

    def costs(self, keep: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count what the budget counts for many unchecked strategies: (..., groups) to (...)."""
        return self.network.cost_model.many(keep, self.budget_metric)

    def meets(self, strategy: ArrayLike, budget: float | None = None) -> bool:
        """Whether a strategy costs no more than a budget; None for the problem's own."""
        budget = self.budget if budget is None else budget
        whole = int(self.costs(self.channels))
        return int(self.costs(self.network.check_strategy(strategy))) <= allowed_cost(budget, whole)

    def prune_ratios(self, strategy: ArrayLike) -> NDArray[np.float64]:
        """Return the fraction of each group's channels that goes; float64, (groups,)."""
        return 1.0 - self.network.check_strategy(strategy) / self.channels

    @alone
    def kept_channels(self, strategy: ArrayLike) -> list[NDArray[np.int64]]:
        """Return the indices of the channels that stay in every group, ascending.

        Where channels go in bundles these are indices of bundles; ``group.positions`` turns them
        into channels of the layer that names the group.
        """
        return self._ranking.kept(self.network.check_strategy(strategy))

    @alone
    def scores(self, criterion: str, *, relative: bool = True) -> tuple[Scores, ...]:
        """Score every group's channels under any criterion, the higher the more worth keeping.

        For ``relative`` see :class:`~lfgcl_env.pruning.criteria.criterion.Context`.

        Raises:
            ValueError: for an unknown criterion, or one that a group gives nothing to score by.
        """
        return self._ranking.scores(criterion, relative=relative)

    @alone
    def evaluate(self, strategy: ArrayLike) -> Evaluation:
        """Score a strategy; one scored before is looked up."""
        return self._memory.evaluate(self.network.check_strategy(strategy))

    @alone
    def measure(self, strategy: ArrayLike) -> Evaluation:
        """Score a strategy anew, without remembering or counting it."""
        return self._score(self.network.check_strategy(strategy))

    def evaluate_many(
        self, strategies: Iterable[ArrayLike], engine: Submits | None = None
    ) -> list[Evaluation]:
        """Score strategies, those that are not remembered together.

        Args:
            strategies: channels kept in every group, each.
            engine: an executor whose workers score them, see :mod:`lfgcl_env.engine`; None for this
                process. With as many threads the results are the same, bit for bit.

        Raises:
            ValueError: if the problem is on a GPU, and Ray's actors take no part of one.
            WorkerDied: if a strategy ended several of an engine's own workers. Here and wherever
                one fails, those that were scored are remembered.
        """
        keeps = [self.network.check_strategy(strategy) for strategy in strategies]
        self.prefetch(keeps, engine)
        return [self._memory.evaluate(keep) for keep in keeps]

    def prefetch(self, strategies: Iterable[ArrayLike], engine: Submits | None = None) -> None:
        """Score and remember strategies that :meth:`evaluate` is to be asked, uncounted as yet.

        Args:
            strategies: channels kept in every group, each.
            engine: as in :meth:`evaluate_many`.
        """
        check_gpus(engine, self.device.type)
        new = self.unknown(strategies)
        if engine is None:
            for keep in new:
                self.remember(self.measure(keep))
            return
        spread(engine, ScoredProblem.measure, self.shared, new, lambda _, one: self.remember(one))

    def unknown(self, strategies: Iterable[ArrayLike]) -> list[tuple[int, ...]]:
        """Return those strategies that :meth:`evaluate` would score, each once.

        Raises:
            ValueError: if one is no strategy of this problem.
        """
        keeps = [self.network.check_strategy(strategy) for strategy in strategies]
        return list(dict.fromkeys(tuple(k.tolist()) for k in keeps if k not in self._memory))

    def screen(
        self, strategies: Sequence[ArrayLike], engine: Submits | None = None
    ) -> NDArray[np.float64]:
        """Score strategies cheaply, to choose which of them to evaluate.

        A network is repaired by least squares, and its features are compared by
        ``discounted_mse`` on the first 64 calibration images, whatever :meth:`evaluate` does.
        Strategies screened before are looked up; they do not count as evaluated.

        Args:
            strategies: channels kept in every group, each.
            engine: as in :meth:`evaluate_many`.

        Returns:
            The higher, the more is promised; only the order means anything. float64, (strategies,).
        """
        check_gpus(engine, self.device.type)
        screen = self._ready_screen()
        checked = [self.network.check_strategy(strategy) for strategy in strategies]
        if engine is not None:
            new = list(dict.fromkeys(tuple(k.tolist()) for k in checked if k not in screen))
            spread(engine, _screen_one, self.shared, new, screen.remember)
        return self._screened(screen, checked)

    def screened_before(self, keeps: Iterable[tuple[int, ...]]) -> dict[tuple[int, ...], float]:
        """Return the cheap scores of those strategies that :meth:`screen` would look up."""
        found = {} if self._screen is None else {keep: self._screen.known(keep) for keep in keeps}
        return {keep: score for keep, score in found.items() if score is not None}

    def remember_screened(self, scores: Mapping[tuple[int, ...], float]) -> None:
        """Remember what :meth:`screen` of this problem returned in another process."""
        screen = self._ready_screen()
        for keep, score in scores.items():
            screen.remember(keep, score)

    def known(self, strategy: ArrayLike) -> bool:
        """Whether :meth:`evaluate` would look a strategy up."""
        return self.network.check_strategy(strategy) in self._memory

    def count(self) -> AbstractContextManager[set[tuple[int, ...]]]:
        """Count the distinct strategies evaluated inside a block, looked-up ones included.

        ``with problem.count() as counted:`` gives the set of these strategies, as tuples.
        """
        return self._memory.count()

    def remember(self, evaluation: Evaluation) -> None:
        """Remember an evaluation made earlier, so that it is not made again.

        Raises:
            ValueError: if its strategy or costs are not of this problem, or it is no evaluation.
        """
        check_evaluation(evaluation)
        self._memory.add(evaluation, self.cost(evaluation.keep))

    def forget(self) -> None:
        """Forget all scores, so that every strategy is scored anew."""
        self._memory.clear()
        self._screen = None
        vars(self).pop("shared", None)  # workers forget with it

    def score_network(self, network: nn.Module, strategy: ArrayLike) -> float:
        """Return the similarity of any network with a strategy's channels, however it was trained.

        Raises:
            ValueError: if the network has other channels, or cannot be run on the images.
        """
        return self.scorer.compare(self.scorer.read(network, self.kept_channels(strategy)))

    @alone
    def features(self, strategy: ArrayLike, network: nn.Module | None = None) -> list[Tensor]:
        """Return a pruned network's features on the calibration images, in the baseline's shape.

        Args:
            strategy: channels kept in every group.
            network: one with these channels; None for the strategy's candidate, cut and repaired.

        Returns:
            One matrix (images, features) per place, removed channels as zeros.
        """
        kept = self.kept_channels(strategy)
        features = self._read(kept) if network is None else self.scorer.read(network, kept)
        return [one.flatten(1) for one in self.scorer.named(features)]

    def settings(self) -> dict[str, Any]:
        """Return every argument that decides scores, JSON-able: see ``Option.decides``."""
        decisive = [name for name, known in options(ProblemConfig).items() if known.decides]
        settings = {name: value for name, value in self._config.items() if name in decisive}
        settings["latency_table"] = self.latency_table
        read_back: dict[str, Any] = json.loads(json.dumps(settings | {"budget": self.budget}))
        return read_back

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what workers were sent, which is this process's to remove."""
        state = super().__getstate__()
        state.pop("shared", None)
        return state

    @cached_property
    def shared(self) -> "Shared[ScoredProblem]":
        """This problem as workers load it, with what cheap scores take where these pay."""
        if self.screens:
            self._ready_screen()
        with self._lock:
            return Shared(self)

    @alone
    def _ready_screen(self) -> Screen:
        if self._screen is None:
            features = None if self.baseline.outputs else self._config["features"]
            first = chunks_of(first_of(self.batches, SCREENED), len(self.batches[0]))
            self._screen = Screen(self.network, self.device, first, lambda: self.moments, features)
        return self._screen

    @alone
    def _screened(self, screen: Screen, keeps: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
        kept = self._ranking.kept
        return np.array([screen(keep, partial(kept, keep)) for keep in keeps], np.float64)

    def _place(self, images: Tensor, *, large: bool) -> list[Tensor]:
        """Put images on the device, in batches of the type that candidates are run in."""
        dtype = next(self.candidate.network.parameters()).dtype
        return split_images(images.to(self.device, dtype), self.network.layout, large=large)

    def _read(self, kept: list[NDArray[np.int64]]) -> list[Tensor]:
        """Cut and repair the candidate, and return its features."""
        self.candidate.install(kept)
        found = self._repair.run(self.candidate, kept, self.scorer.reader, self.score_batches)
        return self.scorer.join(found, kept)

    def _score(self, keep: NDArray[np.int64]) -> Evaluation:
        return self._evaluation(keep, self.scorer.compare(self._read(self.kept_channels(keep))))

    def _evaluation(self, keep: NDArray[np.int64], similarity: float) -> Evaluation:
        return Evaluation.of(keep.tolist(), similarity, self.cost(keep), self.baseline_cost)


def _screen_one(problem: ScoredProblem, keep: tuple[int, ...]) -> float:
    return float(problem.screen([keep])[0])
