"""Checks that removing a group's channels does exactly what hiding them would do.

A group is right if the cut network computes what the whole network computes when all consumers
ignore the removed channels. Running is not enough: a network with shuffled channels runs with the
wrong ones removed, and one with zero-padded shortcuts adds the wrong ones together.

A group may go whole if that is right too, and the output still depends on the images.
"""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.edge.value_checks import with_kind
from lfgcl_env.pruning.structure.candidate import Candidate
from lfgcl_env.pruning.structure.groups import Exclusion, Group
from lfgcl_env.pruning.structure.slice_plan import SlicePlan
from lfgcl_env.pruning.structure.training_mode import (
    TrainingOnly,
    find_training_only,
    run_training,
)

WRONG = "removing its channels changes more than hiding them from their consumers would"


def split_exact(
    network: nn.Module,
    groups: Sequence[Group],
    example: Tensor,
    layout: torch.memory_format = torch.channels_last,
) -> tuple[list[Group], list[Exclusion]]:
    """Separate the groups for which cutting and hiding differ from the others.

    All groups are tried together first, and one by one only if that fails.

    Args:
        network: the baseline in evaluation mode; not changed.
        groups: to be checked.
        example: inputs (images, channels, height, width).
        layout: that the network can be run in, see
            :func:`~lfgcl_env.pruning.structure.candidate.fastest_layout`.
    """
    double = copy.deepcopy(network).eval().double().cpu()
    inputs = example.double().cpu()
    training = _Training(double, inputs, find_training_only(network, example))

    def find_fault(tried: Sequence[Group]) -> str | None:
        return _find_fault(double, tried, inputs, layout, training)

    if not groups or find_fault(groups) is None:
        return list(groups), []
    right: list[Group] = []
    excluded: list[Exclusion] = []
    for group in groups:
        trouble = find_fault([*right, group])
        if trouble is None:
            right.append(group)
        else:
            excluded.append(Exclusion(group.name, group.channels, trouble))
    return right, excluded


def find_lowest(
    network: nn.Module,
    groups: Sequence[Group],
    example: Tensor,
    fewest: Sequence[int],
    layout: torch.memory_format = torch.channels_last,
) -> NDArray[np.int64]:
    """Find the fewest channels that every group can keep: 0 where all of them may go, else 1.

    All groups for which it is 0 may go together. They are tried together first; of those that fail,
    each half is tried again.

    Args:
        network: the baseline in evaluation mode; not changed.
        groups: those that can be cut.
        example: inputs (images, channels, height, width).
        fewest: channels that every group is to keep; where it is above 0, the answer is 1.
        layout: that the network can be run in.

    Returns:
        int64, (groups,).
    """
    lowest = np.ones(len(groups), dtype=np.int64)
    tried = [index for index, least in enumerate(fewest) if least == 0]
    if not tried:
        return lowest
    double = copy.deepcopy(network).eval().double().cpu()
    removal = _Removal(double, groups, example.double().cpu(), layout)
    # The first trial is the cheap one, and the one that fails more often.
    live = _find_removable(removal.leaves_output, tried)
    lowest[_find_removable(removal.is_exact, live)] = 0
    return lowest


def _find_removable(
    may_go: Callable[[Sequence[int]], bool], tried: list[int], known: Sequence[int] = ()
) -> list[int]:
    """Return ``known`` and those of ``tried`` that may go together with them."""
    together = [*known, *tried]
    if may_go(together):
        return together
    if len(tried) < 2:
        return list(known)
    half = len(tried) // 2
    return _find_removable(may_go, tried[half:], _find_removable(may_go, tried[:half], known))


class _Removal:
    """Tries to remove whole groups."""

    def __init__(
        self,
        network: nn.Module,
        groups: Sequence[Group],
        inputs: Tensor,
        layout: torch.memory_format,
    ) -> None:
        self._network, self._inputs = network, inputs
        self._plan = SlicePlan(network, groups)
        self._candidate = Candidate(network, self._plan, layout=layout)
        with torch.inference_mode():
            self._whole = network(inputs)

    @torch.inference_mode()
    def leaves_output(self, removed: Sequence[int]) -> bool:
        """Whether the network runs without groups, and its output depends on the images."""
        try:
            self._candidate.install(self._kept(removed))
            output = self._candidate.network(torch.full_like(self._inputs[:1], torch.nan))
        except Exception:
            return False
        # Whatever depends on an image of NaN is NaN.
        return bool(output.isnan().any())

    @torch.inference_mode()
    def is_exact(self, removed: Sequence[int]) -> bool:
        """Whether groups can go as if hidden.

        Neighbours can hide each other's faults: they are tried alternately too.
        """
        for part in (removed, removed[::2], removed[1::2]):
            kept = self._kept(part)
            self._candidate.install(kept)
            cut = self._candidate.network(self._inputs)
            hidden = _hide(self._network, self._plan, kept)(self._inputs)
            if not _is_same(cut, hidden, self._whole):
                return False
        return True

    def _kept(self, removed: Sequence[int]) -> list[NDArray[np.int64]]:
        return [
            np.arange(0 if index in removed else group.channels)
            for index, group in enumerate(self._plan.groups)
        ]


@torch.inference_mode()
def _find_fault(
    network: nn.Module,
    groups: Sequence[Group],
    inputs: Tensor,
    layout: torch.memory_format,
    training: "_Training",
) -> str | None:
    """Return None if half of every group's channels can be cut as if hidden, else the reason."""
    generator = np.random.default_rng(0)
    kept = [
        np.sort(generator.permutation(group.channels)[: max(1, group.channels // 2)])
        for group in groups
    ]
    plan = SlicePlan(network, groups)
    candidate = Candidate(network, plan, layout=layout)
    try:
        candidate.install(kept)
        cut = candidate.network(inputs)
    except Exception as error:
        return f"the network fails without its channels ({with_kind(error)})"
    whole = network(inputs)
    hidden = _hide(network, plan, kept)
    if not _is_same(cut, hidden(inputs), whole):
        return WRONG
    return training.find_fault(candidate.network, hidden)


class _Training:
    """Compares cut networks in training, where layers run that evaluation does not know.

    Args:
        network: in evaluation mode; not changed.
        inputs: (images, channels, height, width).
        only: what it runs in training only.
    """

    def __init__(self, network: nn.Module, inputs: Tensor, only: TrainingOnly) -> None:
        self._inputs = inputs
        self._heads = () if only.failure else only.heads
        self._whole = run_training(network, inputs) if self._heads else []
        again = run_training(network, inputs, seed=1) if self._heads else []
        self._random = not all(map(torch.equal, self._whole, again))

    def find_fault(self, cut: nn.Module, hidden: nn.Module) -> str | None:
        """Return None if a cut network gives in training what one with hidden channels does."""
        if not self._heads:
            return None
        heads = f"{self._heads[0]}, which runs in training only,"
        try:
            outputs = run_training(cut, self._inputs)
        except Exception as error:
            return f"{heads} fails without its channels ({with_kind(error)})"
        if self._random:  # such as dropout that is no module: a smaller network draws others
            return None
        triples = zip(outputs, run_training(hidden, self._inputs), self._whole, strict=True)
        same = all(_is_same(*triple) for triple in triples)
        return None if same else f"{heads} changes otherwise than by hiding its channels"


def _is_same(cut: Tensor, hidden: Tensor, whole: Tensor) -> bool:
    """Whether a cut network computes what one with hidden channels does."""
    if cut.shape != hidden.shape:
        return False
    # Deep networks with random weights can react to a whole group by a billionth of their output:
    # the error is held against that reaction, and against double precision where it drowns.
    scale = float(whole.abs().max())
    reaction = float((hidden - whole).abs().max())
    difference = float((cut - hidden).abs().max())
    return difference <= max(1e-4 * reaction, 1e-12 * scale)


def _hide(network: nn.Module, plan: SlicePlan, kept: Sequence[NDArray[np.int64]]) -> nn.Module:
    """Return a copy of the whole network whose consumers ignore all channels not in ``kept``."""
    copied = copy.deepcopy(network)
    mask = plan.mask(kept)
    for name, slices in plan.layers.items():
        if slices.into is not None:
            hidden = np.setdiff1d(np.arange(slices.into.size), slices.into.kept(mask))
            weight = copied.get_submodule(name).weight
            assert isinstance(weight, Tensor)
            weight.data[:, torch.from_numpy(hidden)] = 0
    return copied
