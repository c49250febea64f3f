"""Tracing a network with ``torch.fx`` so that its graph also holds for networks cut from it."""

from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from threading import get_ident
from typing import Any

from torch import Tensor, fx, nn

from lfgcl_env.networks.copying import forget
from lfgcl_env.networks.one_thread_tracer import OneThreadTracer
from lfgcl_env.networks.padded_encoder import PaddedEncoder
from lfgcl_env.pruning.structure.channel_norms import is_channel_norm
from lfgcl_env.pruning.structure.head_counts import head_attributes, head_count
from lfgcl_env.pruning.structure.layers import does_more, is_frozen_norm, layer_kind

_ROOT = "network"

_NORM_FORWARDS = {kind.forward for kind in (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)}


class OneInput(nn.Module):
    """Calls a network with images alone, so that its other arguments have their defaults."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """Return what the network does."""
        return self.network(images)


class Tracer(OneThreadTracer):
    """Sees norms and encoders as one operation, and counts of heads as what may change.

    Attributes that count heads which may go are read when the graph is run, from the network that
    it is run on. Otherwise their values would be fixed to the baseline's.
    """

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[fx.Node, int] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether calls of a module are one operation."""
        if module_qualified_name == _ROOT:
            return False
        known = is_frozen_norm(m) or _is_norm_alone(m) or isinstance(m, PaddedEncoder)
        return known or super().is_leaf_module(m, module_qualified_name)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return what reading a tensor, module or count of heads gives."""
        if isinstance(attr_val, _Count) and get_ident() == self._thread:
            proxy = self.create_proxy("get_attr", attr_val.place, (), {})
            self._values[proxy.node] = int(attr_val)
            return proxy
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Return whether a condition holds for the baseline, if it is one on counts of heads."""
        if not _follows(obj.node, self._values):
            return super().to_bool(obj)
        return bool(_value(obj.node, self._values))


def _is_norm_alone(module: nn.Module) -> bool:
    """Whether a module is a norm over channels that runs no layers, which could be refitted.

    It may hold some that others call.
    """
    stock = type(module).forward in _NORM_FORWARDS and not does_more(module)
    holds = any(layer_kind(inner) for inner in module.modules())
    return is_channel_norm(module) and (stock or not holds)


def _follows(node: fx.Node, known: Mapping[fx.Node, int]) -> bool:
    """Whether a value follows from counts of heads alone."""
    inputs = node.all_input_nodes
    known_inputs = bool(inputs) and all(_follows(one, known) for one in inputs)
    return node in known or (node.op == "call_function" and known_inputs)


def _value(node: fx.Node, known: Mapping[fx.Node, int]) -> Any:
    if node in known:
        return known[node]
    arguments = fx.map_arg((node.args, node.kwargs), lambda one: _value(one, known))
    return node.target(*arguments[0], **arguments[1])  # type: ignore[operator, index, misc]


def trace_once(network: nn.Module, cut: Container[str] = ()) -> fx.Graph:
    """Trace the graph of a network that is called with images alone.

    Args:
        network: to be traced.
        cut: names of modules that may lose heads, whose counts are read when the graph is run.
            Where that fails, as for loops over heads, they are constants after all.

    Raises:
        Exception: of any kind, whatever ``torch.fx`` or the network raises.
    """
    forget(network)  # or what it keeps would be a constant of the graph
    try:
        with _counts_to_read(network, cut):
            graph = Tracer().trace(OneInput(network))
    except Exception:
        graph = Tracer().trace(OneInput(forget(network)))
    finally:
        forget(network)  # or it would keep what only stands for values
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            node.target = str(node.target).removeprefix(f"{_ROOT}.")
    return graph


class _Count(int):
    """A number of a module that is read under a name."""

    place: str


@contextmanager
def _counts_to_read(network: nn.Module, cut: Container[str]) -> Iterator[None]:
    """Hold modules' counts of heads inside the block where reading them is seen by a tracer.

    That is among a module's buffers, which are found by ``__getattr__``.
    """
    moved: list[tuple[nn.Module, str, int]] = []
    for name, module in network.named_modules():
        for attribute in head_attributes(module) if name in cut and head_count(module) else ():
            value = vars(module)[attribute]
            count = _Count(value)
            count.place = ".".join(filter(None, (_ROOT, name, attribute)))
            moved.append((module, attribute, value))
            del vars(module)[attribute]
            module._buffers[attribute] = count  # type: ignore[assignment]
    try:
        yield
    finally:
        for module, attribute, value in moved:
            del module._buffers[attribute]
            vars(module)[attribute] = value
