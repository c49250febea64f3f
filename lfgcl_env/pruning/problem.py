"""PruningProblem: the one object that environments, agents' runs and baselines talk to."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from lfgcl_env.edge.choices import check_choice
from lfgcl_env.networks import Baseline, load_baseline
from lfgcl_env.pruning.budget.cost import Cost, CostModel
from lfgcl_env.pruning.budget.projection import Projection
from lfgcl_env.pruning.checks import (
    check_fit,
    checked_images,
    checked_ratios,
    checked_strategy,
    split_images,
)
from lfgcl_env.pruning.criteria.brain_surgeon import Elimination, eliminate
from lfgcl_env.pruning.criteria.orders import Context, Scores, orders, scores_of
from lfgcl_env.pruning.evaluation import Evaluation
from lfgcl_env.pruning.moments.second_moments import Moments, collect_moments, large_layers
from lfgcl_env.pruning.repair.batchnorm import REPAIRS, Found, run_plain, run_with_batchnorm
from lfgcl_env.pruning.repair.least_squares import LeastSquares
from lfgcl_env.pruning.repair.sequential import SequentialOptions, repair_sequentially
from lfgcl_env.pruning.score.features import OUTPUT, FeatureReader, entrance_of_last_third
from lfgcl_env.pruning.score.similarities import (
    OF_OUTPUTS,
    SIMILARITIES,
    WORST,
    discounted_mse,
    relative_error,
    variance,
)
from lfgcl_env.pruning.structure.candidate import Candidate, Statistics, fastest_layout
from lfgcl_env.pruning.structure.groups import Exclusion, Group
from lfgcl_env.pruning.structure.layers import Layer, count_macs, measure_layers
from lfgcl_env.pruning.structure.saved_form import save_pruned
from lfgcl_env.pruning.structure.scope import prunable
from lfgcl_env.pruning.structure.slice_plan import SlicePlan
from lfgcl_env.pruning.structure.surgery import cut


class PruningProblem:
    """A trained network, some unlabelled images and a budget.

    All that does not depend on a strategy is computed here, once: groups, slice plan, costs,
    channel orders and the baseline's features. Scoring a strategy then takes index selections and
    forward passes of an already smaller network; a strategy scored before takes nothing.

    Args:
        network: the baseline, as :func:`lfgcl_env.networks.load_baseline` returns it, or any
            module. It is never changed.
        images: unlabelled inputs, normalised as the network expects them; float
            (images, channels, height, width).
        budget: fraction of the baseline's cost that may remain; :meth:`project` takes others.
        budget_metric: ``"macs"`` or ``"params"``.
        criterion: the order in which a group's channels go, a name in
            :data:`~lfgcl_env.pruning.criteria.orders.CRITERIA`.
        repair: ``"least_squares"`` (consumers refitted in closed form), ``"batchnorm"``
            (statistics re-estimated on the images) or ``"none"``.
        similarity: ``"discounted_mse"``, ``"mse"``, ``"cosine"``, ``"cka"``, ``"kl"`` or
            ``"agreement"``. ``"discounted_mse"`` is ``"mse"`` with ``features``, and for
            networks in which every layer's inputs are pruned (plain ones, or ``scope="all"``).
        scope: ``"inner"`` leaves alone the groups that an addition couples (residual streams);
            ``"all"`` includes them.
        features: modules at whose outputs features are compared; None for the classifier's input
            (penultimate features); ``"kl"`` and ``"agreement"`` always compare the outputs.
        round_to: kept counts are multiples of it, or the whole group.
        min_channels: fewest channels that stay in a group.
        seed: for the random criterion.
        device: where candidates run.

    Raises:
        ValueError: for unknown names, images that do not fit, an unreachable budget, or a network
            in which nothing can be pruned; the message says what would do.

    Attributes:
        groups: what a strategy has one entry for.
        excluded: what is left alone, and why.
        layers: the baseline's convolutions and linear layers in order of use.
        listeners: called with the evaluation after every new distinct strategy.
    """

    def __init__(
        self,
        network: nn.Module | Baseline,
        images: Tensor,
        *,
        budget: float = 0.5,
        budget_metric: str = "macs",
        criterion: str = "obs",
        repair: str = "least_squares",
        similarity: str = "discounted_mse",
        scope: str = "inner",
        features: Sequence[str] | None = None,
        round_to: int = 1,
        min_channels: int = 1,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.repair = check_choice(repair, REPAIRS, "repair")
        self.similarity = check_choice(similarity, SIMILARITIES, "similarity")
        images = checked_images(images)
        if not isinstance(network, Baseline):
            network = load_baseline(network, input_shape=tuple(images.shape[1:]))
        self.baseline = network
        module = network.network
        check_fit(network, images, self.repair)
        self.device = torch.device(device)

        example = images[:2].to(next(module.parameters(), images))
        self.layers: tuple[Layer, ...] = measure_layers(module, example[:1])
        self._layout = fastest_layout(module, example)
        tracing = prunable(module, example, scope, self._layout)
        self.groups: tuple[Group, ...] = tracing.groups
        self.excluded: tuple[Exclusion, ...] = tracing.excluded
        self._parts, self._followed_by = tracing.parts, tracing.followed_by

        self.plan = SlicePlan(module, self.groups)
        other_macs = count_macs(module, example[:1]) - sum(layer.macs for layer in self.layers)
        self._cost = CostModel(module, self.plan, self.layers, max(other_macs, 0))
        self._channels = np.array([group.channels for group in self.groups], dtype=np.int64)
        self._projection = Projection(
            self._channels.tolist(),
            self._cost,
            metric=budget_metric,
            round_to=round_to,
            min_channels=min_channels,
        )
        self.budget = self.check_budget(budget)
        self.criterion = criterion
        self._candidate = Candidate(module, self.plan, device=self.device, layout=self._layout)
        statistics = repair == "batchnorm"
        dtype = next(self._candidate.network.parameters()).dtype
        placed = images.to(device=self.device, dtype=dtype)
        self._batches = split_images(placed, self._layout, statistics=statistics)
        self._seed = seed
        self._orders = orders(criterion, self._context(), self.groups)
        if repair == "least_squares":
            self._candidate.solver = LeastSquares(self.moments, dtype)
            self._candidate.followed_by = tracing.followed_by

        places = [OUTPUT] if self.similarity in OF_OUTPUTS else features
        forgiving = self.similarity == "discounted_mse" and features is None
        entrance = entrance_of_last_third(self.plan) if forgiving else None
        self._entrances = int(entrance is not None)
        self._reader = FeatureReader(module, self.plan, self.layers, places, entrance)
        found = run_plain(self._candidate.network, self._reader, self._batches)
        self._targets = self._reader.joined(found, None)
        # Once, because it does not change and is as dear as the comparison itself.
        self._entrance_variance = variance(self._targets[0]) if self._entrances else None
        self._check_places()

        self.memory: dict[tuple[int, ...], Evaluation] = {}
        self.listeners: list[Callable[[Evaluation], None]] = []

    @property
    def budget_metric(self) -> str:
        """What the budget counts: ``"macs"`` or ``"params"``."""
        return self._projection.metric

    @property
    def lowest_budget(self) -> float:
        """The smallest budget that can be met, as a fraction of the baseline's cost."""
        return self._projection.lowest

    @property
    def images(self) -> int:
        """How many calibration images there are."""
        return sum(len(batch) for batch in self._batches)

    @property
    def baseline_cost(self) -> Cost:
        """Cost of the unpruned network."""
        return self._cost.baseline

    @property
    def evaluations(self) -> int:
        """How many distinct strategies were scored, those remembered from a file included."""
        return len(self.memory)

    @cached_property
    def moments(self) -> dict[str, Moments]:
        """Second moments of the inputs of every layer that a group feeds, by layer name."""
        whole = Candidate(self.baseline.network, self.plan, device=self.device, layout=self._layout)
        return collect_moments(
            whole.network, self.plan, self._batches, self._followed_by, seed=self._seed
        )

    @cached_property
    def large_layers(self) -> dict[str, int]:
        """Layers too large for a moment matrix, which closed-form repair meets by means alone.

        Their numbers of patch features, by name; known without collecting moments.
        """
        return large_layers(self.baseline.network, self.plan)

    @cached_property
    def eliminations(self) -> dict[str, Elimination]:
        """Backward elimination of every group's channels, by group name: order and error curve."""
        return {group.name: eliminate(group, self.moments) for group in self.groups}

    @cached_property
    def channels(self) -> NDArray[np.int64]:
        """Channels of every group in the baseline; int64, (groups,)."""
        channels = self._channels.copy()
        channels.flags.writeable = False
        return channels

    def check_budget(self, budget: float) -> float:
        """Return ``budget`` as a float.

        Raises:
            ValueError: if it is not in (0, 1] or cannot be reached; the message names the range.
        """
        return self._projection.check_budget(budget)

    def project(self, prune_ratios: ArrayLike, budget: float | None = None) -> NDArray[np.int64]:
        """Turn wanted prune ratios into the strategy on the budget that shifts all alike.

        Args:
            prune_ratios: fraction of each group's channels to remove, in [0, 1]; (groups,).
            budget: instead of the problem's own.

        Returns:
            A strategy: channels kept in every group; int64, (groups,). It never costs more than
            the budget, and one more channel in any group would.

        Raises:
            ValueError: for a wrong shape, NaN, ratios outside [0, 1], or an unreachable budget.
        """
        ratios = checked_ratios(prune_ratios, len(self.groups))
        value = self.budget if budget is None else self.check_budget(budget)
        return self._projection(ratios, value)

    def cost(self, strategy: ArrayLike) -> Cost:
        """MACs and parameters of a strategy, in closed form.

        Raises:
            ValueError: if it is no strategy of this problem.
        """
        return self._cost(self._checked(strategy))

    def costs(self, keep: NDArray[np.int64]) -> NDArray[np.int64]:
        """What the budget counts, of many unchecked strategies at once: (..., groups) to (...)."""
        return self._cost.many(keep, self.budget_metric)

    def prune_ratios(self, strategy: ArrayLike) -> NDArray[np.float64]:
        """Fraction of each group's channels that a strategy removes; float64, (groups,)."""
        return 1.0 - self._checked(strategy) / self._channels

    def kept_channels(self, strategy: ArrayLike) -> list[NDArray[np.int64]]:
        """Indices of the channels that a strategy keeps in every group, ascending."""
        keep = self._checked(strategy)
        return [np.sort(order[:k]) for order, k in zip(self._orders, keep, strict=True)]

    def scores(self, criterion: str, *, relative: bool = True) -> tuple[Scores, ...]:
        """Score every group's channels under any criterion, the higher the more worth keeping.

        Args:
            criterion: a name in :data:`~lfgcl_env.pruning.criteria.orders.CRITERIA`.
            relative: see :class:`~lfgcl_env.pruning.criteria.orders.Context`.

        Returns:
            One array (channels,) per group, float64.

        Raises:
            ValueError: for an unknown criterion, or one that a group gives nothing to go by.
        """
        return scores_of(criterion, self._context(relative), self.groups)

    def evaluate(self, strategy: ArrayLike) -> Evaluation:
        """Score a strategy; one scored before is looked up.

        Args:
            strategy: channels kept in every group; integers, (groups,).

        Raises:
            ValueError: if it is no strategy of this problem.
        """
        keep = self._checked(strategy)
        key = tuple(keep.tolist())
        if key not in self.memory:
            evaluation = self._evaluation(keep, self._compared(self._features(keep)))
            self.memory[key] = evaluation
            for listener in self.listeners:
                listener(evaluation)
        return self.memory[key]

    def remember(self, evaluation: Evaluation) -> None:
        """Put an evaluation made earlier into the memory, so that it is not made again.

        Raises:
            ValueError: if its strategy or costs are not of this problem.
        """
        cost = self.cost(evaluation.keep)
        if (cost.macs, cost.params) != (evaluation.macs, evaluation.params):
            raise ValueError(
                f"an evaluation with {evaluation.macs} MACs and {evaluation.params} parameters is "
                f"not of this problem: the same strategy has {cost.macs} and {cost.params} here"
            )
        self.memory[tuple(int(k) for k in evaluation.keep)] = evaluation

    def compress(self, strategy: ArrayLike) -> nn.Module:
        """Return a physically smaller network for a strategy, as it was scored.

        The surgery is Torch-Pruning's, on a copy; what the repair changed is then carried over.

        Raises:
            ValueError: if it is no strategy of this problem.
        """
        keep = self._checked(strategy)
        module = self.baseline.network
        smaller = cut(module, self.groups, self.kept_channels(keep), self._parts)
        _, statistics = self._run(keep)
        with self._candidate.with_statistics(statistics):
            smaller.load_state_dict(self._candidate.network.state_dict())
        for parameter, original in zip(smaller.parameters(), module.parameters(), strict=True):
            parameter.requires_grad_(original.requires_grad)
        return smaller

    def finish(
        self,
        strategy: ArrayLike,
        images: Tensor,
        options: SequentialOptions | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> tuple[nn.Module, Evaluation]:
        """Compress a strategy, repair it sequentially, and score the result.

        Takes seconds to minutes, so it is meant for the best few strategies. The score is not
        remembered: it belongs to another network than :meth:`evaluate`'s.

        Args:
            strategy: channels kept in every group.
            images: unlabelled inputs to repair on, better others than the problem's own, on which
                the result is scored; float (images, channels, height, width).
            options: of the repair, see there.
            progress: called with the operations done and their number.

        Returns:
            The repaired network, on the CPU, and its evaluation.

        Raises:
            ValueError: if it is no strategy of this problem, the images do not fit, or ``torch.fx``
                cannot trace the network.
        """
        keep = self._checked(strategy)
        images = checked_images(images)
        check_fit(self.baseline, images, "none")
        network = self.compress(keep).to(self.device)
        mask = self.plan.mask(self.kept_channels(keep))
        whole = Candidate(
            self.baseline.network, self.plan, device=self.device, layout=self._layout
        ).network
        repair_sequentially(
            whole,
            network,
            images.to(self.device),
            self.plan,
            mask,
            options,
            layout=self._layout,
            border=self._black,
            progress=progress,
        )
        similarity = self.score_network(network, keep)
        return network.cpu(), self._evaluation(keep, similarity)

    def score_network(self, network: nn.Module, strategy: ArrayLike) -> float:
        """Similarity of any network with a strategy's channels, however it was repaired or trained.

        Args:
            network: in evaluation mode, on the problem's device.
            strategy: channels kept in every group.
        """
        return self._compared(self._features(self._checked(strategy), network))

    def features(self, strategy: ArrayLike, network: nn.Module | None = None) -> list[Tensor]:
        """Features of a pruned network on the calibration images, in the baseline's shape.

        Args:
            strategy: channels kept in every group.
            network: one with these channels; None for the strategy's candidate, cut and repaired.

        Returns:
            One matrix (images, features) per place, removed channels as zeros; the baseline's own
            are ``features(channels)``.
        """
        return self._features(self._checked(strategy), network)[self._entrances :]

    def _features(self, keep: NDArray[np.int64], network: nn.Module | None = None) -> list[Tensor]:
        """The same, with what enters the last third of the groups first if that is compared."""
        mask = self.plan.mask(self.kept_channels(keep))
        if network is None:
            return self._reader.joined(self._run(keep)[0], mask)
        found = run_plain(network, self._reader, self._batches)
        return self._reader.joined(found, mask)

    def save(
        self,
        path: str | os.PathLike[str],
        strategy: ArrayLike,
        network: nn.Module | None = None,
        budget: float | None = None,
        **facts: Any,
    ) -> Path:
        """Write the pruned network of a strategy, see :func:`lfgcl_env.load_pruned`.

        Args:
            path: the file to write.
            strategy: channels kept in every group.
            network: what :meth:`compress` or :meth:`finish` returned; None compresses.
            budget: what it was made for, if not the problem's own.
            **facts: JSON-able facts to keep with it.

        Raises:
            OSError: if the file cannot be written; nothing half-written stays.
        """
        evaluation = self.evaluate(strategy)
        names = [group.name for group in self.groups]
        kept = [channels.tolist() for channels in self.kept_channels(strategy)]
        return save_pruned(
            path,
            self.compress(strategy) if network is None else network,
            self.baseline,
            self.plan,
            kept_channels=dict(zip(names, kept, strict=True)),
            evaluation=asdict(evaluation),
            settings=self.settings() | ({} if budget is None else {"budget": budget}),
            **facts,
        )

    def settings(self) -> dict[str, Any]:
        """The JSON-able arguments that decide scores: budget, criterion, repair, similarity, ..."""
        return {
            "budget": self.budget,
            "budget_metric": self.budget_metric,
            "criterion": self.criterion,
            "repair": self.repair,
            "similarity": self.similarity,
        }

    def _context(self, relative: bool = True) -> Context:
        return Context(
            self.baseline.network,
            torch.cat(self._batches).cpu(),
            lambda: self.eliminations,
            lambda: self.moments,
            self._seed,
            relative,
        )

    @property
    def _black(self) -> Tensor:
        """Pixels of value 0 as the network sees them; (channels,)."""
        pixels = torch.zeros(self.baseline.input_shape[0], 1, 1)
        normalization = self.baseline.normalization
        return (pixels if normalization is None else normalization.apply(pixels)).flatten()

    def _checked(self, strategy: ArrayLike) -> NDArray[np.int64]:
        return checked_strategy(strategy, self.groups)

    def _run(self, keep: NDArray[np.int64]) -> tuple[Found, Statistics]:
        self._candidate.install(self.kept_channels(keep))
        if self.repair == "batchnorm":
            return run_with_batchnorm(self._candidate, self._reader, self._batches)
        return run_plain(self._candidate.network, self._reader, self._batches), {}

    def _compared(self, features: list[Tensor]) -> float:
        compare = SIMILARITIES[self.similarity]
        with torch.inference_mode():
            pairs = list(zip(self._targets, features, strict=True))
            if self._entrances:
                upstream_error = relative_error(*pairs.pop(0), self._entrance_variance)
                compare = partial(discounted_mse, upstream_error=upstream_error)
            values = [compare(target, mine) for target, mine in pairs]
        similarity = float(np.mean(values))
        return similarity if np.isfinite(similarity) else WORST[self.similarity]

    def _evaluation(self, keep: NDArray[np.int64], similarity: float) -> Evaluation:
        cost = self._cost(keep)
        whole = self.baseline_cost
        return Evaluation(
            keep=tuple(keep.tolist()),
            similarity=similarity,
            macs=cost.macs,
            params=cost.params,
            macs_ratio=cost.macs / whole.macs,
            params_ratio=cost.params / whole.params,
        )

    def _check_places(self) -> None:
        """Refuse feature places whose channels change in a way that the plan does not know."""
        halves = np.maximum(1, self._channels // 2)
        self._candidate.install(self.kept_channels(halves))
        found = run_plain(self._candidate.network, self._reader, [self._batches[0][:1]])
        for target, features in zip(
            self._targets,
            self._reader.joined(found, self.plan.mask(self.kept_channels(halves))),
            strict=True,
        ):
            if target.shape[1:] != features.shape[1:]:
                raise ValueError(
                    "features loses channels that cannot be matched to the baseline's: name a "
                    "convolution, linear or BatchNorm layer instead"
                )
