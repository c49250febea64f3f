"""The baseline's values that layers of pruned networks are fitted to."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from lfgcl_env.pruning.repair.conv_bn import ConvBN
from lfgcl_env.pruning.repair.graph_runner import GraphRunner
from lfgcl_env.pruning.repair.profiles import Samples
from lfgcl_env.pruning.repair.schedule import Refit, Schedule


class Targets(Protocol):
    """The baseline's values at the points of layers."""

    def rows(self, refit: Refit, chosen: Sequence[Tensor]) -> Tensor:
        """Return them at sampled positions; (rows, channels)."""

    def whole(self, refit: Refit, chunks: int) -> list[Tensor]:
        """Return them in the first chunks of images."""


class LiveTargets:
    """The baseline's values, computed while pruned networks are walked.

    Args:
        network: the baseline.
        schedule: of it.
        chunks: images on its device.
    """

    def __init__(self, network: nn.Module, schedule: Schedule, chunks: list[Tensor]) -> None:
        self._network, self._schedule = network, schedule
        self._values = GraphRunner(network, chunks)

    def advance(self, index: int) -> None:
        """Run what the baseline runs before a step."""
        for node in self._schedule.ahead[index]:
            self._values.run(node)

    def forget(self, index: int) -> None:
        """Drop what is not needed after a step."""
        self._values.forget(self._schedule.baseline_unused[index])

    def shapes(self, refit: Refit) -> list[tuple[int, int]]:
        """Return the length of a layer's every output, and the positions of each of its rows."""
        values: list[Tensor] = self._values[refit.point]
        axis = -1 if isinstance(self._network.get_submodule(refit.layer), nn.Linear) else 1
        return [(len(value), value[0].numel() // value.shape[axis]) for value in values]

    def rows(self, refit: Refit, chosen: Sequence[Tensor]) -> Tensor:
        """Return the values at sampled positions; (rows, channels)."""
        layer = ConvBN(self._network.get_submodule(refit.layer), None)
        pairs = zip(self._values[refit.point], chosen, strict=True)
        return torch.cat([layer.rows_of_output(value, places) for value, places in pairs])

    def whole(self, refit: Refit, chunks: int) -> list[Tensor]:
        """Return the values in the first chunks of images."""
        return list(self._values[refit.point][:chunks])


class KeptTargets:
    """The baseline's values where layers are fitted, computed once for all strategies.

    Args:
        network: the baseline.
        schedule: of it.
        chunks: images on its device.
        samples: where layers are fitted.
        gauss_newton: whether consumers' values at all positions are wanted too.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        chunks: list[Tensor],
        samples: Samples,
        *,
        gauss_newton: bool,
    ) -> None:
        self._rows: dict[str, Tensor] = {}
        self._whole: dict[str, list[Tensor]] = {}
        live = LiveTargets(network, schedule, chunks)
        for index, step in enumerate(schedule.steps):
            live.advance(index)
            if isinstance(step, Refit):
                shapes = live.shapes(step)
                chosen = samples(step.number, shapes, chunks[0].device)
                self._rows[step.layer] = live.rows(step, chosen)
                if gauss_newton and step.path:
                    count = samples.whole_chunks(shapes[0][1])
                    self._whole[step.layer] = [v.clone() for v in live.whole(step, count)]
            live.forget(index)

    def rows(self, refit: Refit, chosen: Sequence[Tensor]) -> Tensor:
        """Return the values at sampled positions; (rows, channels)."""
        return self._rows[refit.layer]

    def whole(self, refit: Refit, chunks: int) -> list[Tensor]:
        """Return the values in the first chunks of images."""
        return self._whole[refit.layer][:chunks]
