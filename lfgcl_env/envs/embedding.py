"""Layer embeddings: an agent's observation of a network, one row of numbers per group."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lfgcl_env.pruning.problem import PruningProblem
from lfgcl_env.pruning.structure.layers import Layer

FEATURES: tuple[str, ...] = (
    "position",  # of the group among all groups, -1 first to 1 last
    "convolution",  # 1 if the channels come from a convolution, -1 from a linear layer
    "depthwise",  # 1 if a depthwise convolution follows the group, else -1
    "coupled",  # 1 if an addition couples several producers, else -1
    "channels",  # log2 of the channels, not of bundles, 0 to 12
    "inputs",  # log2 of the input channels of the first producer, 0 to 12
    "kernel_in",  # side of the first producer's kernel, 1 to 11
    "kernel_out",  # side of the first consumer's kernel, 1 to 11
    "stride",  # of the first producer, 1 to 4
    "resolution",  # log2 of the first producer's output positions, 0 to 16
    "macs_share",  # share of the baseline's MACs in layers that the group touches
    "params_share",  # likewise of parameters of convolutions and linear layers
    "gain",  # fraction of all MACs (or params) that removing half of the group alone would save
    "weight_spread",  # standard deviation over mean of the filters' L1 norms, 0 to 1
    "weight_lowest",  # smallest over mean L1 norm, 0 to 1
    "weight_highest",  # mean over largest L1 norm, 0 to 1
    "error_75",  # relative output error of the consumers with 75 % of the channels kept, 0 to 1
    "error_50",  # with 50 %
    "error_25",  # with 25 %
    "keep_ratio",  # of the strategy at hand
    "cost_ratio",  # MACs (or params) left by the strategy at hand, the same in every row
    "budget",  # the same in every row
)
"""The columns of an embedding, in order; each is scaled from its range to [-1, 1] and clipped."""

KEEP_RATIOS = (0.75, 0.5, 0.25)
"""Keep ratios at which a group's error curve, its measured sensitivity, is sampled."""

_BUDGET = FEATURES.index("budget")
_DYNAMIC = 3  # the last columns change from step to step


def observed_budget(observation: NDArray[np.floating[Any]]) -> float:
    """Return the budget in an observation, flattened or not.

    >>> observed_budget(np.zeros((9, len(FEATURES)), dtype=np.float32))
    0.5
    """
    return (float(np.ravel(observation)[_BUDGET]) + 1.0) / 2.0


class Embedding:
    """Computes observations of a problem; all but three columns are computed once.

    Args:
        problem: the problem to describe.
    """

    def __init__(self, problem: PruningProblem) -> None:
        self._problem = problem
        rows = [self._static_row(index) for index in range(len(problem.groups))]
        self._static = np.array(rows, dtype=np.float64)
        self.shape = (len(problem.groups), len(FEATURES))

    def __call__(self, keep: NDArray[np.int64], budget: float) -> NDArray[np.float32]:
        """Return a new observation; float32, (groups, features), in [-1, 1].

        Args:
            keep: channels, or bundles of them, kept in every group at the moment; (groups,).
            budget: fraction of the baseline's cost that may remain.
        """
        problem = self._problem
        spent = int(problem.costs(keep)) / int(problem.costs(problem.channels))
        observation = np.empty(self.shape, dtype=np.float64)
        observation[:, :-_DYNAMIC] = self._static
        observation[:, -3] = _scale(keep / problem.channels, 0, 1)
        observation[:, -2] = _scale(spent, 0, 1)
        observation[:, -1] = _scale(budget, 0, 1)
        return np.clip(observation, -1.0, 1.0).astype(np.float32)

    def _static_row(self, index: int) -> list[float]:
        problem = self._problem
        group = problem.groups[index]
        layers = {layer.name: layer for layer in problem.layers}
        touched = {m.layer for m in group.members if m.layer in layers}
        producer = next(layers[n] for n in group.layers("out") if n in layers)
        consumer = next(layers[n] for n in group.layers("in") if n in layers)
        norms = self._filter_norms(producer.name)
        mean = max(float(norms.mean()), 1e-12)
        last = max(len(problem.groups) - 1, 1)
        depthwise = any(
            layers[n].kind == "depthwise" for n in group.layers("through") if n in layers
        )
        halved = problem.channels.copy()
        halved[index] = max(1, group.channels // 2)
        macs = problem.baseline_cost.macs
        saved = 1 - int(problem.costs(halved)) / int(problem.costs(problem.channels))
        weights = sum(_weights(layer) for layer in problem.layers)
        return [
            _scale(index, 0, last),
            1.0 if producer.kind != "linear" else -1.0,
            1.0 if depthwise else -1.0,
            1.0 if group.coupled else -1.0,
            _scale(np.log2(group.channels * group.bundle), 0, 12),
            _scale(np.log2(producer.in_channels), 0, 12),
            _scale(producer.kernel**0.5, 1, 11),
            _scale(consumer.kernel**0.5, 1, 11),
            _scale(producer.stride, 1, 4),
            _scale(np.log2(max(producer.positions, 1)), 0, 16),
            _scale(sum(layers[n].macs for n in touched) / macs, 0, 1),
            _scale(sum(_weights(layers[n]) for n in touched) / weights, 0, 1),
            _scale(saved, 0, 0.5),
            _scale(float(norms.std()) / mean, 0, 1),
            _scale(float(norms.min()) / mean, 0, 1),
            _scale(mean / max(float(norms.max()), 1e-12), 0, 1),
            *(_scale(self._error(group.name, group.channels, keep), 0, 1) for keep in KEEP_RATIOS),
        ]

    def _error(self, group: str, channels: int, keep_ratio: float) -> float:
        """Root of the relative squared output error of the group's consumers, refitted."""
        errors = self._problem.eliminations[group].errors
        kept = max(1, round(keep_ratio * channels))
        return float(np.sqrt(errors[kept] / max(float(errors.max()), 1e-12)))

    def _filter_norms(self, layer: str) -> NDArray[np.float64]:
        weight = self._problem.baseline.network.get_submodule(layer).weight
        assert isinstance(weight, torch.Tensor)
        norms: NDArray[np.float64] = weight.detach().double().abs().flatten(1).sum(1).cpu().numpy()
        return norms


def _weights(layer: Layer) -> int:
    return layer.kernel * layer.fan * layer.out_channels


def _scale(value: float | NDArray[np.float64], low: float, high: float) -> float:
    """Map [low, high] to [-1, 1]."""
    return 2.0 * (value - low) / (high - low) - 1.0  # type: ignore[return-value]
