"""One layer's least-squares problem inside sequential repair."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lfgcl_env.pruning.moments.patches import gram_with_one
from lfgcl_env.pruning.moments.second_moments import ridge_strength
from lfgcl_env.pruning.repair.conv_bn import ConvBN
from lfgcl_env.pruning.repair.rectifier import Goals, Rectifier
from lfgcl_env.pruning.repair.ridge_fit import ByMoments, ByRows, Rows

_SURE = 8
"""Rows for each feature from which on a fit is not checked on other images."""

_SURE_OF_OUTPUTS = 2
"""The same for layers that give outputs.

They are compared by predictions, and a ridge that lowers the squared error of logits on other
images can make these worse: ResNet-20 at half of its MACs, scored on 256 images, lost up to 0.01.
"""

_HELD_OUT = 4
"""Of so many images one is held out."""

_MORE = (1.0, 10.0, 100.0, 1000.0)
"""Ridges that are tried with few rows, as multiples of the usual one."""


class Fit:
    """A layer's inputs and targets at sampled positions, and the map between them that fits best.

    Args:
        layer: the layer with its BatchNorm; its weights are changed by :meth:`solve`.
        wanted: the baseline's values at the layer's point, for the channels that stay;
            (rows, channels).
        there: values of the other operand of the addition at that point in the pruned network, or
            None; (rows, channels).
        relu: the rectifier that follows the point, if one does, in whose flat parts all targets
            mean the same.
        ridge: see :class:`~lfgcl_env.pruning.repair.sequential.SequentialOptions`.
        last: whether the layer gives an output of the network.

    Attributes:
        patches: the layer's inputs; (rows, features).
    """

    def __init__(
        self,
        layer: ConvBN,
        wanted: Tensor,
        there: Tensor | None,
        *,
        relu: Rectifier | None,
        ridge: float,
        last: bool = False,
    ) -> None:
        self.layer, self.relu, self._last = layer, relu, last
        self._wanted, self._there, self._ridge = wanted, there, ridge
        self.patches: Tensor
        self._moments: Tensor | None = None

    def read(self, inputs: Sequence[Tensor], chosen: Sequence[Tensor]) -> None:
        """Take the layer's input patches at chosen positions.

        Args:
            inputs: chunks of the layer's inputs in the pruned network; the first ones alone are
                enough, and then :meth:`solve` goes by them alone.
            chosen: output positions of every chunk; int64, (images, positions).
        """
        self.patches = self.layer.reader.patches(inputs, chosen)
        self._moments = None
        self._per_image = chosen[0].shape[1]

    @property
    def moments(self) -> Tensor:
        """E[a a^T] of the rows a with a constant 1 last; float64, (features + 1, features + 1)."""
        if self._moments is None:
            self._moments = gram_with_one(self.patches) / len(self.patches)
        return self._moments

    @property
    def is_sure(self) -> bool:
        """Whether there are so many rows that a fit to them holds on other images."""
        count, features = self.patches.shape
        return count >= (_SURE_OF_OUTPUTS if self._last else _SURE) * (features + 1)

    def solve(self, relu_aware: int) -> None:
        """Set the layer's weights to the solution.

        With few rows a quarter of the images is held out, and the ridge is raised as far as their
        error asks for; where no fit lowers it, the layer is left as it is.

        Args:
            relu_aware: how often targets in flat parts of a rectifier are replaced by those that
                are nearest to the current output.
        """
        count, features = self.patches.shape
        times = relu_aware if self.relu is not None else 0
        strength = ridge_strength(self._ridge, features + 1, count)
        if not self.is_sure:
            better = self._strength_by_others(strength, times)
            if better is None:
                return
            strength = better
        matrix = self._solution(self._rows(), strength, times)
        if matrix is not None:
            self.layer.set(matrix)

    def _rows(self) -> Rows:
        count = len(self.patches)
        there = None if self._there is None else self._there[:count]
        return Rows(self.patches, self._wanted[:count], there)

    def _strength_by_others(self, least: float, times: int) -> float | None:
        """Return the ridge whose fit to most images is best on the others; None for no fit."""
        rows = self._rows()
        held = self._held_out(len(rows.patches))
        mine, others = rows.pick(~held), rows.pick(held)
        best, lowest = None, self._error(others, self.layer.matrix())
        before = float("inf")
        for strength in (least * more for more in _MORE):
            matrix = self._solution(mine, strength, times)
            error = float("inf") if matrix is None else self._error(others, matrix)
            if error < lowest:
                best, lowest = strength, error
            if error > before:
                break
            before = error
        return best

    def _held_out(self, count: int) -> Tensor:
        """Return which rows are of images that are held out; of a single one, rows are."""
        images = -(-count // self._per_image)
        each = self._per_image if images > 1 else 1
        every = min(_HELD_OUT, max(2, images))
        number = torch.arange(count, device=self.patches.device) // each
        return number % every == every - 1

    def _error(self, rows: Rows, matrix: Tensor) -> float:
        """Return the squared error of a map, behind the rectifier where one follows."""
        output, wanted = rows.output(matrix), rows.wanted
        if self.relu is not None:
            output, wanted = self.relu(output), self.relu(wanted)
        return float((output - wanted).square().sum())

    def _solution(self, rows: Rows, strength: float, times: int) -> Tensor | None:
        """Return the map that fits rows best; None if there is no finite one."""
        layer, (count, features) = self.layer, rows.patches.shape
        solve: ByRows | ByMoments
        if count <= features:
            solve = ByRows(rows.patches, strength, layer.intercept)
        else:
            whole = count == len(self.patches)
            moments = self.moments if whole else gram_with_one(rows.patches) / count
            solve = ByMoments(rows.patches, moments, strength, layer.intercept)
        matrix = prior = layer.matrix()
        goals = Goals(self.relu, rows.wanted) if times and self.relu is not None else None
        for attempt in range(1 + times):
            goal = rows.wanted
            if attempt and goals is not None:
                goal = goals.near(rows.output(matrix))
            if rows.there is not None:
                goal = goal - rows.there
            matrix = solve(goal, prior)
            if not bool(torch.isfinite(matrix).all()):
                return None
        return matrix
