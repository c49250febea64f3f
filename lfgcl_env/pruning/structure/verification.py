"""Checks that removing a group's channels does exactly what hiding them would do.

A group is right if the cut network computes what the whole network computes when all consumers
ignore the removed channels. Running is not enough: a network with shuffled channels runs with the
wrong ones removed, and one with zero-padded shortcuts adds the wrong ones together.

A group may go whole if that is right too, and the output still depends on the images.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.edge.value_checks import with_kind
from lfgcl_env.networks.copying import copy_network
from lfgcl_env.networks.outputs import named_outputs
from lfgcl_env.pruning.structure.candidate import Candidate
from lfgcl_env.pruning.structure.channel_norms import is_channel_norm, normalise_kept
from lfgcl_env.pruning.structure.double_precision import InDouble
from lfgcl_env.pruning.structure.groups import Exclusion, Group
from lfgcl_env.pruning.structure.layers import weight_axes
from lfgcl_env.pruning.structure.slice_plan import SlicePlan
from lfgcl_env.pruning.structure.strong_response import StrongResponse
from lfgcl_env.pruning.structure.training_mode import (
    TrainingOnly,
    find_training_only,
    run_training,
)

WRONG = "removing its channels changes more than hiding them from their consumers would"

_FEWEST_NORMALISED = 2

_FEW = 4
"""Channels of a group that are tried one by one."""


def split_exact(
    network: nn.Module,
    groups: Sequence[Group],
    example: Tensor,
    layout: torch.memory_format = torch.channels_last,
    only: TrainingOnly | None = None,
) -> tuple[list[Group], list[Exclusion]]:
    """Separate the groups for which cutting and hiding differ from the others.

    All groups are tried together first, and one by one only if that fails.

    Args:
        network: the baseline in evaluation mode; not changed.
        groups: to be checked.
        example: inputs (images, channels, height, width).
        layout: that the network can be run in, see
            :func:`~lfgcl_env.pruning.structure.candidate.fastest_layout`.
        only: what it runs in training only; None to find out.
    """
    if not groups:
        return [], []
    double = copy_network(network).eval().double().cpu()
    inputs = example.double().cpu()
    only = find_training_only(network, example) if only is None else only
    with _sharpened():
        training = _Training(double, inputs, only)

    def find_fault(right: Sequence[Group], tried: Sequence[Group]) -> str | None:
        with _sharpened():
            return _find_fault(double, right, tried, inputs, layout, training)

    if find_fault((), groups) is None:
        return list(groups), []
    right: list[Group] = []
    excluded: list[Exclusion] = []
    for group in groups:
        trouble = find_fault(right, [group])
        if trouble is None:
            right.append(group)
        else:
            excluded.append(Exclusion(group.name, group.channels, trouble))
    return right, excluded


@contextmanager
def _sharpened() -> Iterator[None]:
    """Let networks compute so that what cutting changes shows in what they give."""
    with InDouble(), StrongResponse():
        yield


def find_lowest(
    network: nn.Module,
    groups: Sequence[Group],
    example: Tensor,
    fewest: Sequence[int],
    layout: torch.memory_format = torch.channels_last,
) -> NDArray[np.int64]:
    """Find the fewest channels that every group can keep: 0 where all of them may go, else 1 or 2.

    A norm over channels needs two: of one, which is its own mean, it gives the same for all images.
    All groups for which it is 0 may go together. They are tried together first; of those that fail,
    each half is tried again.

    Args:
        network: the baseline in evaluation mode; not changed.
        groups: those that can be cut.
        example: inputs (images, channels, height, width).
        fewest: channels that every group is to keep; where it is above 0, the answer is too.
        layout: that the network can be run in.

    Returns:
        int64, (groups,).
    """
    lowest = np.array([_fewest_left(network, group) for group in groups], dtype=np.int64)
    tried = [index for index, least in enumerate(fewest) if least == 0]
    if not tried:
        return lowest
    double = copy_network(network).eval().double().cpu()
    with _sharpened():
        removal = _Removal(double, groups, example.double().cpu(), layout)
        # The first trial is the cheap one, and the one that fails more often.
        live = _find_removable(removal.leaves_output, tried)
        lowest[_find_removable(removal.is_exact, live)] = 0
    return lowest


def _fewest_left(network: nn.Module, group: Group) -> int:
    """Return the fewest channels, or bundles, of a group that all norms behind it can work with."""
    through = (member for member in group.members if member.side == "through")
    norms = (m for m in through if is_channel_norm(network.get_submodule(m.layer)))
    counts = [-(-_FEWEST_NORMALISED // group.bundle_of(member)) for member in norms]
    return min(group.channels, max([1, *counts]))


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
            self._whole = _observe(network, self._plan, inputs)

    @torch.inference_mode()
    def leaves_output(self, removed: Sequence[int]) -> bool:
        """Whether the network runs without groups, and its outputs still depend on the images."""
        unknown = torch.full_like(self._inputs[:1], torch.nan)
        try:
            whole = named_outputs(self._network(unknown))
            self._candidate.install(self._kept(removed))
            left = named_outputs(self._candidate.network(unknown))
        except Exception:
            return False
        # Whatever depends on an image of NaN is NaN.
        live = [name for name, output in whole.items() if output.isnan().any()]
        return bool(live) and all(name in left and left[name].isnan().any() for name in live)

    @torch.inference_mode()
    def is_exact(self, removed: Sequence[int]) -> bool:
        """Whether groups can go as if hidden.

        Neighbours can hide each other's faults: they are tried alternately too.
        """
        for part in (removed, removed[::2], removed[1::2]):
            kept = self._kept(part)
            self._candidate.install(kept)
            cut = _observe(self._candidate.network, self._plan, self._inputs)
            hidden = _observe(
                _hide(self._network, self._plan, kept), self._plan, self._inputs, kept
            )
            if not _is_same(cut, hidden, self._whole):
                return False
        return True

    def _kept(self, removed: Sequence[int]) -> list[NDArray[np.int64]]:
        return [
            np.arange(0 if index in removed else group.channels)
            for index, group in enumerate(self._plan.groups)
        ]


def _find_fault(
    network: nn.Module,
    right: Sequence[Group],
    tried: Sequence[Group],
    inputs: Tensor,
    layout: torch.memory_format,
    training: "_Training",
) -> str | None:
    """Return None if channels of groups, and of those known to be right, can be cut as if hidden.

    Otherwise the reason is returned.
    """
    plan = SlicePlan(network, (*right, *tried))
    candidate = Candidate(network, plan, layout=layout)
    for kept in _trials(network, right, tried):
        fault = _find_fault_in(network, candidate, kept, inputs, training)
        if fault is not None:
            return fault
    return None


def _trials(
    network: nn.Module, right: Sequence[Group], tried: Sequence[Group]
) -> Iterator[list[NDArray[np.int64]]]:
    """Yield the channels that every group keeps, once or more often.

    These are half of them, drawn at random. Of a few channels a half says little: the middle one of
    three that are turned round stays where it is, and a norm over one channel gives the same for
    any. So of a few each is tried by itself, or in front of such a norm all but each.
    """
    generator = np.random.default_rng(0)
    few = [group.channels for group in tried if group.channels <= _FEW]
    for trial in range(max(few, default=1)):
        yield [
            _kept_of_few(network, group, trial)
            if group.channels <= _FEW
            else np.sort(generator.permutation(group.channels)[: group.channels // 2])
            for group in (*right, *tried)
        ]


def _kept_of_few(network: nn.Module, group: Group, trial: int) -> NDArray[np.int64]:
    fewest, every = _fewest_left(network, group), np.arange(group.channels)
    one = every[trial % group.channels]
    if fewest == 1:
        return every[[one]]
    return every if group.channels == fewest else np.delete(every, one)


@torch.inference_mode()
def _find_fault_in(
    network: nn.Module,
    candidate: Candidate,
    kept: Sequence[NDArray[np.int64]],
    inputs: Tensor,
    training: "_Training",
) -> str | None:
    """Return None if all groups can be cut to their channels in ``kept``, else the reason."""
    plan = candidate.plan
    try:
        candidate.install(kept)
        cut = _observe(candidate.network, plan, inputs)
    except Exception as error:
        return f"the network fails without its channels ({with_kind(error)})"
    whole = _observe(network, plan, inputs, kept)
    hidden = _hide(network, plan, kept)
    masked = _observe(hidden, plan, inputs, kept)
    if not _is_same(cut, masked, whole):
        return WRONG
    if all(torch.equal(masked[name], whole[name]) for name in masked):
        # An output that no channel reaches, as behind a layer of zeros, tells nothing.
        cut = _observe(candidate.network, plan, inputs, inside=True)
        masked, whole = (
            _observe(one, plan, inputs, kept, inside=True) for one in (hidden, network)
        )
        if not _is_same(cut, masked, whole):
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
        self._whole = run_training(network, inputs) if self._heads else {}
        again = run_training(network, inputs, seed=1) if self._heads else {}
        self._random = not all(torch.equal(self._whole[k], again[k]) for k in again)

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
        same = _is_same(outputs, run_training(hidden, self._inputs), self._whole)
        return None if same else f"{heads} changes otherwise than by hiding its channels"


def _observe(
    network: nn.Module,
    plan: SlicePlan,
    inputs: Tensor,
    kept: Sequence[NDArray[np.int64]] | None = None,
    *,
    inside: bool = False,
) -> dict[str, Tensor]:
    """Run a network, and return its outputs by their places.

    Of a network that returns more than one tensor the outputs of all consumers belong to it: what
    it returns may be picked by what it computes, as detections are, or be nothing at all.

    Args:
        network: cut, or whole.
        plan: how it is cut.
        inputs: to be run on.
        kept: for each group, the channels that consumers' outputs are reduced to.
        inside: whether the outputs of consumers belong to a single tensor as well.
    """
    consumed: dict[str, Tensor] = {}

    def keep(name: str, _: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        out, linear = plan.layers[name].out, isinstance(network.get_submodule(name), nn.Linear)
        if kept is not None and out is not None:
            stay = torch.from_numpy(out.kept(plan.mask(kept)))
            output = output.index_select(-1 if linear else 1, stay)
        consumed[f"{name} called {len(consumed)}"] = output.clone()

    with ExitStack() as stack:
        for name, slices in plan.layers.items():
            if slices.into is not None:
                hook = network.get_submodule(name).register_forward_hook(partial(keep, name))
                stack.callback(hook.remove)
        returned = network(inputs)
    if isinstance(returned, Tensor):
        return {"": returned} | (consumed if inside else {})
    return named_outputs(returned) | consumed


def _is_same(cut: dict[str, Tensor], hidden: dict[str, Tensor], whole: dict[str, Tensor]) -> bool:
    """Whether a cut network computes what one with hidden channels does."""
    return cut.keys() == hidden.keys() and all(
        _is_equal(cut[name], hidden[name], whole.get(name)) for name in cut
    )


def _is_equal(cut: Tensor, hidden: Tensor, whole: Tensor | None) -> bool:
    if cut.shape != hidden.shape:
        return False
    if not cut.numel():
        return True
    # Deep networks with random weights can react to a whole group by a billionth of their output:
    # the error is held against that reaction, and against double precision where it drowns.
    reaction, scale = 0.0, float(hidden.abs().max())
    if whole is not None and whole.shape == hidden.shape:
        reaction, scale = float((hidden - whole).abs().max()), float(whole.abs().max())
    difference = float((cut - hidden).abs().max())
    return difference <= max(1e-4 * reaction, 1e-12 * scale)


def _hide(network: nn.Module, plan: SlicePlan, kept: Sequence[NDArray[np.int64]]) -> nn.Module:
    """Return a copy of the whole network whose consumers ignore all channels not in ``kept``.

    So do norms over all channels.
    """
    copied = copy_network(network)
    mask = plan.mask(kept)
    for name, slices in plan.layers.items():
        norm = copied.get_submodule(name)
        if slices.out is not None and is_channel_norm(norm):
            known = torch.from_numpy(slices.out.kept(mask))
            norm.register_forward_hook(partial(normalise_kept, known), with_kwargs=True)
        if slices.into is not None:
            hidden = np.setdiff1d(np.arange(slices.into.size), slices.into.kept(mask))
            consumer = copied.get_submodule(name)
            assert isinstance(consumer.weight, Tensor)
            consumer.weight.data.index_fill_(
                weight_axes(consumer)[1], torch.from_numpy(hidden), 0.0
            )
    return copied
