"""Sequential repair from module calls, for networks of which there is no graph of operations.

The layers are refitted in the order in which the baseline calls them. Hooks read what a layer gets
in the pruned network, and what it gives in the baseline, behind its BatchNorm: the inputs and the
targets of its least squares. So errors made earlier are corrected later, as in
:mod:`lfgcl_env.pruning.repair.sequential`; the additions and ReLUs behind a layer are not seen.

This is the asymmetric reconstruction of Zhang et al. (TPAMI 2016) without its nonlinear part. Every
layer takes a forward pass up to its call, of the baseline and of every pruned network.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn

from lfgcl_env.networks.outputs import named_outputs
from lfgcl_env.pruning.repair.conv_bn import ConvBN
from lfgcl_env.pruning.repair.interface import Cut
from lfgcl_env.pruning.repair.layer_fit import Fit
from lfgcl_env.pruning.repair.profiles import Samples, SequentialOptions
from lfgcl_env.pruning.structure.emptied import NoChannels
from lfgcl_env.pruning.structure.fixed_layers import find_refittable
from lfgcl_env.pruning.structure.layers import layer_kind
from lfgcl_env.pruning.structure.slice_plan import SlicePlan


@dataclass(frozen=True)
class Call:
    """A layer that is called once for all inputs.

    Attributes:
        layer: its name.
        norm: the BatchNorm that alone uses its output, or None.
        last: whether what it gives, behind its norm, is an output of the network.
    """

    layer: str
    norm: str | None
    last: bool


@torch.no_grad()
def refit_by_calls(
    network: nn.Module,
    plan: SlicePlan,
    followed_by: Mapping[str, str],
    cuts: Sequence[Cut],
    chunks: Sequence[Tensor],
    options: SequentialOptions,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Refit all layers of pruned networks whose inputs have changed, in place.

    Args:
        network: the baseline, in evaluation mode, on the device of the images.
        plan: how it is cut.
        followed_by: for layers whose output goes into a BatchNorm and nowhere else, its name.
        cuts: the pruned networks.
        chunks: images, some at a time.
        options: see there; ``relu_aware`` and ``gauss_newton`` have no effect.
        progress: called with the layers done and their number.
    """
    samples = Samples([len(chunk) for chunk in chunks], options)
    calls = find_calls(network, followed_by, chunks)
    for number, call in enumerate(calls):
        layer = ConvBN(network.get_submodule(call.layer), None)
        given = _read(network, call.norm or call.layer, chunks, output=True)
        axis = 1 if layer.reader.kernel else -1
        shapes = [(len(value), value[0].numel() // value.shape[axis]) for value in given]
        chosen = samples(number, shapes, chunks[0].device)
        rows = map(layer.rows_of_output, given, chosen)
        wanted = torch.cat(list(rows))
        (plain,) = _read(network, call.layer, chunks[:1])
        for cut in cuts:
            inputs = _read(cut.network, call.layer, chunks)
            if len(inputs) == len(chunks) and not _is_equal(inputs[0], plain):
                _refit(cut, call, plan, inputs, wanted, shapes, chosen, options)
        progress(number + 1, len(calls))


def find_calls(
    network: nn.Module, followed_by: Mapping[str, str], chunks: Sequence[Tensor]
) -> list[Call]:
    """Return the layers that can be refitted, in the order of their calls.

    A layer that is called several times, or for some images only, is none of them.
    """
    norms = {name: followed_by.get(name) for name in find_refittable(network)}
    owners = {norm: name for name, norm in norms.items() if norm}
    counts: Counter[str] = Counter()
    fed: Counter[str] = Counter()  # how often a norm got what its layer had given
    made: dict[str, Tensor] = {}
    newest: dict[str, ReferenceType[Tensor]] = {}  # what every module has given last
    outputs: Sequence[Tensor] = ()

    def count(name: str, _: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        plain = len(arguments) == 1 and isinstance(arguments[0], Tensor)
        counts[name] += 1 if plain and isinstance(output, Tensor) else len(chunks) + 1
        if isinstance(output, Tensor):
            newest[name] = ref(output)
        if name in owners:
            fed[name] += plain and arguments[0] is made.pop(owners[name], None)
        elif norms[name]:
            made[name] = output

    with ExitStack() as stack:
        for name in {*norms, *owners}:
            module = network.get_submodule(name)
            stack.callback(module.register_forward_hook(partial(count, name)).remove)
        for chunk in chunks:
            outputs = list(named_outputs(network(chunk)).values())
    given = {name: tensor() for name, tensor in newest.items()}
    last = {name for name, one in given.items() if any(one is output for output in outputs)}
    found = []
    for name in [name for name, number in counts.items() if number == len(chunks)]:
        norm = norms.get(name)
        if layer_kind(network.get_submodule(name)) in ("conv", "linear"):
            joined = norm and counts[norm] == fed[norm] == len(chunks)
            norm = norm if joined else None
            found.append(Call(name, norm, (norm or name) in last))
    return found


class _Reached(BaseException):
    """Ends a forward pass where all is read that is wanted of it."""


def _read(
    network: nn.Module, name: str, chunks: Sequence[Tensor], *, output: bool = False
) -> list[Tensor]:
    """Run a network up to a module's call; return its input or output of every chunk that did."""
    found: list[Tensor] = []

    def keep(_: nn.Module, arguments: tuple[Tensor, ...], *given: Tensor) -> None:
        found.append(given[0] if output else arguments[0])
        raise _Reached

    module = network.get_submodule(name)
    handle = (
        module.register_forward_hook(keep) if output else module.register_forward_pre_hook(keep)
    )
    try:
        for chunk in chunks:
            with suppress(_Reached):
                network(chunk)
    finally:
        handle.remove()
    return found


def _is_equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _refit(
    cut: Cut,
    call: Call,
    plan: SlicePlan,
    inputs: list[Tensor],
    wanted: Tensor,
    shapes: Sequence[tuple[int, int]],
    chosen: Sequence[Tensor],
    options: SequentialOptions,
) -> None:
    """Fit a layer of a pruned network to the baseline's values at its output channels."""
    module = cut.network.get_submodule(call.layer)
    if isinstance(module, NoChannels):
        return
    norm = None if call.norm is None else cut.network.get_submodule(call.norm)
    layer = ConvBN(module, norm)
    if [(len(x), layer.reader.positions(x[:1])) for x in inputs] != list(shapes):
        return  # the network does something else with fewer channels
    (wanted,) = plan.cut_outputs(call.layer, plan.mask(cut.kept), [wanted])
    fit = Fit(layer, wanted, None, relu=None, ridge=options.ridge, last=call.last)
    fit.read(inputs, chosen)
    fit.solve(0)
