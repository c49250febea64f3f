"""What reaches what inside an attention module, found by running it with NaN in places.

The channels of one head are set to NaN where a layer gives them. What becomes NaN where the output
projection reads tells which channels the head has there, however queries, keys and values are laid
out; and whether heads stay apart on the way.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lfgcl_env.pruning.structure.head_counts import heads_of
from lfgcl_env.pruning.structure.layers import is_channelwise, layer_kind, layer_sizes
from lfgcl_env.pruning.structure.product_calls import find_products
from lfgcl_env.pruning.structure.step_by_step import StepByStep, Unfused

_DENSE = ("conv", "linear")


def first_calls(
    network: nn.Module, modules: Iterable[nn.Module], example: Tensor
) -> dict[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]]:
    """Return copies of the arguments of the first call of every module that is called."""
    calls: dict[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def copied(value: Any) -> Any:
        return value.clone() if isinstance(value, Tensor) else value

    def record(module: nn.Module, arguments: Any, keywords: Any) -> None:
        if module not in calls:
            calls[module] = tree_map(copied, (arguments, keywords))

    handles = [m.register_forward_pre_hook(record, with_kwargs=True) for m in modules]
    try:
        with torch.no_grad():
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    return calls


class HeadProbe:
    """Runs an attention module with NaN in places.

    Args:
        name: of the module.
        module: counts its heads, and has not been cut.
        arguments: of a call.
        keywords: of the call.

    Attributes:
        projection: the first layer behind all heads, by its name; None if there is none, or if
            the module multiplies no matrices but in its layers, and so is no attention.
        before: the layers that give what it reads, in the order of their first calls.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> None:
        self.name, self.module = name, module
        self._call = (arguments, keywords)
        self.heads = heads_of(module)
        self.layers = {
            f"{name}.{inner}".lstrip("."): m
            for inner, m in module.named_modules()
            if inner and (layer_kind(m) in _DENSE or is_channelwise(m))
        }
        self._order: list[str] = []
        self._reached: dict[str, NDArray[np.bool_]] = {}
        self.projection: str | None = None
        self.before: list[str] = []
        if self.heads:
            self._find_projection()

    def _find_projection(self) -> None:
        called = find_products(self.module, *self._call)
        if None not in called:
            return
        last = len(called) - called[::-1].index(None)
        names = {m: name for name, m in self.layers.items() if layer_kind(m) in _DENSE}
        givers = {names[m] for m in called[:last] if m in names}
        readers = [names[m] for m in called[last:] if m in names]
        self._run(None, None)
        order = list(dict.fromkeys(self._order))
        dense = [name for name in order if name in givers or name in readers]
        reached = {name: self._reaches(name, dense) for name in order}
        behind = [name for name in readers if any(name in reached[giver] for giver in givers)]
        if behind:
            self.projection = behind[0]
            self.before = [name for name in order if self.projection in reached[name]]

    def _reaches(self, name: str, dense: Sequence[str]) -> set[str]:
        """Return the dense layers that read something of what a layer gives."""
        self._run(name, np.arange(layer_sizes(self.layers[name])[0]))
        return {other for other in dense if other != name and self._reached[other].any()}

    def hit(self, name: str, channels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the input channels of the projection that some channels of a layer reach."""
        self._run(name, channels)
        assert self.projection is not None
        return np.flatnonzero(self._reached[self.projection])

    def is_on_the_way(self, name: str) -> bool:
        """Whether a layer only acts through other layers of the module, as a first of two does."""
        self._run(name, np.arange(layer_sizes(self.layers[name])[0]))
        inner = [n for n in self.before if n != name and layer_kind(self.layers[n]) in _DENSE]
        return any(self._reached[n].any() for n in inner if n in self._reached)

    @torch.no_grad()
    def _run(self, name: str | None, channels: NDArray[np.int64] | None) -> None:
        self._order, self._reached = [], {}
        # On some processors fused attention takes NaN for zeros.
        unfused = Unfused()  # type: ignore[no-untyped-call]
        with StepByStep(), unfused, self._watching(name, channels):
            self.module(*self._call[0], **self._call[1])

    @contextmanager
    def _watching(self, name: str | None, channels: NDArray[np.int64] | None) -> Iterator[None]:
        names = {module: layer for layer, module in self.layers.items()}

        def read(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._order.append(names[module])
            axis = _axis(module)
            unknown = inputs[0].isnan().movedim(axis, 0).flatten(1).any(1).cpu().numpy()
            self._reached[names[module]] = unknown

        def spoil(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> Tensor:
            places = torch.from_numpy(channels).to(output.device)
            return output.index_fill(_axis(module), places, torch.nan)

        handles = [m.register_forward_pre_hook(read) for m in self.layers.values()]
        if name is not None:
            handles.append(self.layers[name].register_forward_hook(spoil))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _axis(module: nn.Module) -> int:
    return -1 if isinstance(module, nn.Linear) else 1
