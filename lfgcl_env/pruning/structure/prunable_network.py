"""PrunableNetwork: everything about pruning a network that needs no images."""

import inspect
from dataclasses import replace
from typing import ClassVar, Unpack

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from lfgcl_env.config import LatencyConfig, StructureConfig, complete, signature
from lfgcl_env.edge.patterns import check_patterns
from lfgcl_env.latency.prediction import LatencyModel
from lfgcl_env.networks import Baseline
from lfgcl_env.networks.copying import copy_network
from lfgcl_env.pruning.budget import latency_metric  # noqa: F401 (registers it)
from lfgcl_env.pruning.budget.limits import Limits, find_producers
from lfgcl_env.pruning.budget.projection import Projection
from lfgcl_env.pruning.budget.rounding import Rounding
from lfgcl_env.pruning.structure.candidate import Candidate, fastest_layout
from lfgcl_env.pruning.structure.cost import Cost, CostModel, Measured
from lfgcl_env.pruning.structure.groups import Exclusion, Group
from lfgcl_env.pruning.structure.layers import Layer, measure_layers
from lfgcl_env.pruning.structure.products import count_products
from lfgcl_env.pruning.structure.scope import find_prunable
from lfgcl_env.pruning.structure.slice_plan import SlicePlan
from lfgcl_env.pruning.structure.surgery import cut
from lfgcl_env.pruning.structure.verification import find_lowest

_EXAMPLES = 2


class PrunableNetwork:
    """A trained network, its groups of channels, and how they are cut and counted.

    Args:
        baseline: the network. It is copied: never changed, and free to be changed meanwhile.
        latency: whose time a budget of latency counts; None for the defaults.
        **config: see :class:`~lfgcl_env.config.StructureConfig`. With ``min_channels=0`` a group
            may lose all its channels where that is exact and leaves an output that depends on the
            images; every other group keeps at least one, or two in front of a norm over channels.

    Raises:
        ValueError: for an unknown scope, a pattern that matches nothing, or a network in which
            nothing can be pruned.

    Attributes:
        baseline: a copy of the network to be pruned.
        groups: what a strategy has one entry for, in the order of the network's modules.
        excluded: what is not pruned, and why.
        layers: the baseline's convolutions and linear layers in order of use.
        layout: memory layout of images and 4-D weights in which the network runs fastest.
        followed_by: for layers whose output goes into a BatchNorm and nowhere else, its name.
        plan: which positions of every layer follow which group.
        cost_model: counts MACs and parameters of any strategy.
        channels: channels of every group, or bundles where they go so, read-only; int64, (groups,).
        lowest: fewest channels that every group can keep, 0 to 2, read-only; int64, (groups,).
        protect: patterns of modules whose layers keep their shapes.
        limits: how far groups may be pruned.
        rounding: the counts that limits allow every group to keep.

    >>> from lfgcl_env.networks import load_baseline
    >>> network = PrunableNetwork(load_baseline("resnet20", "random"))
    >>> len(network.groups), network.channels.tolist(), network.baseline_cost.macs
    (9, [16, 16, 16, 32, 32, 32, 64, 64, 64], 40551040)
    """

    __signature__: ClassVar[inspect.Signature] = signature(
        StructureConfig,
        [
            inspect.Parameter("baseline", inspect.Parameter.POSITIONAL_ONLY, annotation=Baseline),
            inspect.Parameter(
                "latency",
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=None,
                annotation=LatencyConfig | None,
            ),
        ],
    )

    def __init__(
        self,
        baseline: Baseline,
        /,
        latency: LatencyConfig | None = None,
        **config: Unpack[StructureConfig],
    ) -> None:
        chosen = complete(StructureConfig, config, "the network")
        self.protect = check_patterns(chosen["protect"])
        # The caller's may be trained, or prepared by another thread, meanwhile.
        module = copy_network(baseline.network)
        self.baseline = replace(baseline, network=module)
        noise = torch.Generator().manual_seed(0)
        example = torch.randn(_EXAMPLES, *baseline.input_shape, generator=noise)
        example = example.to(next(module.parameters(), example))
        self.layers: tuple[Layer, ...] = measure_layers(module, example[:1])
        self.layout = fastest_layout(module, example)
        tracing = find_prunable(module, example, chosen["scope"], self.layout, self.protect)
        self.groups: tuple[Group, ...] = tracing.groups
        self.excluded: tuple[Exclusion, ...] = tracing.excluded
        self.followed_by = tracing.followed_by
        self.plan = SlicePlan(module, self.groups)
        products = count_products(module, self.plan, self.layers, example[:1], self.layout)
        self.channels = np.array([group.channels for group in self.groups], dtype=np.int64)
        self.limits = Limits.of(chosen)
        producers = find_producers(module, self.groups)
        self.limits.check_used(producers)
        fewest = self.limits.fewest(producers, self.channels.tolist())
        self.lowest = find_lowest(module, self.groups, example, fewest, self.layout)
        self.rounding = Rounding(
            self.channels.tolist(),
            self.limits.steps(producers),
            [max(pair) for pair in zip(fewest, self.lowest.tolist(), strict=True)],
        )
        self.cost_model = CostModel(
            Measured(
                module,
                self.plan,
                self.layers,
                *products,
                baseline.input_shape,
                [self.rounding.counts(group).tolist() for group in range(len(self.groups))],
                complete(LatencyConfig, latency or {}, "the latency"),
            )
        )
        self._ways = self.limits.ways(producers, self.channels.tolist())
        if tracing.protected:
            self._ways.append("less under protect")
        for counts in (self.channels, self.lowest):
            counts.flags.writeable = False

    @property
    def latency(self) -> LatencyModel:
        """Predicts the time of strategies; measures it first if no table is at hand.

        Raises:
            ValueError, FileNotFoundError, ImportError: see
                :func:`~lfgcl_env.pruning.budget.latency_metric.latency`.
        """
        model = self.cost_model.count("latency")
        assert isinstance(model, LatencyModel)
        return model

    def projection(self, metric: str) -> Projection:
        """Return the projection onto budgets of ``metric`` within all limits."""
        return Projection(self.rounding, self.cost_model, metric=metric, ways=self._ways)

    @property
    def baseline_cost(self) -> Cost:
        """Cost of the unpruned network."""
        return self.cost_model.baseline

    def cost(self, strategy: ArrayLike) -> Cost:
        """Count MACs and parameters of a strategy, in closed form.

        Raises:
            ValueError: if it is no strategy of this network.
        """
        return self.cost_model(self.check_strategy(strategy))

    def check_strategy(self, strategy: ArrayLike) -> NDArray[np.int64]:
        """Return a strategy as int64, (groups,).

        Raises:
            ValueError: if it has another shape, or counts that a group cannot keep.
        """
        try:
            keep = np.asarray(strategy)
        except (ValueError, TypeError, RuntimeError):
            keep = np.empty(0, dtype=object)
        real = np.issubdtype(keep.dtype, np.integer) or np.issubdtype(keep.dtype, np.floating)
        if keep.shape != self.channels.shape or not real:
            raise ValueError(
                f"a strategy holds one count of kept channels for each of the {len(self.groups)} "
                f"groups, got {keep.dtype} of shape {keep.shape}"
            )
        allowed = np.isfinite(keep) & (keep >= self.lowest) & (keep <= self.channels)
        whole = np.where(allowed, keep, 0).astype(np.int64)
        wrong = np.flatnonzero(~allowed | (whole != keep))
        if len(wrong):
            group, fewest = self.groups[wrong[0]], self.lowest[wrong[0]]
            counted = "channels" if group.bundle == 1 else f"bundles of {group.bundle} channels"
            raise ValueError(
                f"group {group.name} can keep {fewest} to {group.channels} {counted}, "
                f"got {keep[wrong[0]]}"
            )
        return whole

    def cut(self, kept: list[NDArray[np.int64]]) -> nn.Module:
        """Return a physically smaller copy that is not repaired.

        Args:
            kept: for each group, the indices of the channels that stay.
        """
        return cut(self.baseline.network, self.plan, kept)

    def candidate(self, device: torch.device | str = "cpu") -> Candidate:
        """Return a new candidate, which is the whole network until a strategy is installed."""
        candidate = Candidate(self.baseline.network, self.plan, device=device, layout=self.layout)
        candidate.followed_by = self.followed_by
        return candidate
