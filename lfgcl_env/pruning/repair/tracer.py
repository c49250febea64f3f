"""Tracing a network with ``torch.fx`` so that its graph also holds for networks cut from it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, fx, nn

from lfgcl_env.pruning.structure.head_counts import head_attributes, head_count
from lfgcl_env.pruning.structure.layers import is_frozen_norm


class OneInput(nn.Module):
    """Calls a network with images alone, so that its other arguments have their defaults."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """Return what the network does."""
        return self.network(images)


class Tracer(fx.Tracer):
    """Sees norms made of buffers as one operation, and counts of heads as what may change.

    Attributes that count heads are read when the graph is run, from the network that it is run on.
    Otherwise their values would be fixed to the baseline's.
    """

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether calls of a module are one operation."""
        return is_frozen_norm(m) or super().is_leaf_module(m, module_qualified_name)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return what reading a tensor, module or count of heads gives."""
        if isinstance(attr_val, _Count):
            return self.create_proxy("get_attr", attr_val.place, (), {})
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def trace_once(network: nn.Module) -> fx.Graph:
    """Trace the graph of a network that is called with images alone.

    Raises:
        Exception: of any kind, whatever ``torch.fx`` or the network raises.
    """
    with _counts_to_read(network):
        graph = Tracer().trace(OneInput(network))
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            node.target = str(node.target).removeprefix("network.")
    return graph


class _Count(int):
    """A number of a module that is read under a name."""

    place: str


@contextmanager
def _counts_to_read(network: nn.Module) -> Iterator[None]:
    """Hold the counts of heads inside the block where reading them is seen by a tracer.

    That is among a module's buffers, which are found by ``__getattr__``.
    """
    moved: list[tuple[nn.Module, str, int]] = []
    for name, module in network.named_modules():
        for attribute in head_attributes(module) if head_count(module) else ():
            value = vars(module)[attribute]
            count = _Count(value)
            count.place = ".".join(filter(None, ("network", name, attribute)))
            moved.append((module, attribute, value))
            del vars(module)[attribute]
            module._buffers[attribute] = count  # type: ignore[assignment]
    try:
        yield
    finally:
        for module, attribute, value in moved:
            del module._buffers[attribute]
            vars(module)[attribute] = value
