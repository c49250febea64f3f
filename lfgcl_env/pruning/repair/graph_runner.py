"""Running a network operation by operation, so that layers can be refitted in between."""

import operator
from collections.abc import Container, Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from lfgcl_env.pruning.repair.conv_bn import can_convolve
from lfgcl_env.pruning.repair.rectifier import Rectifier
from lfgcl_env.pruning.repair.tracer import trace_once
from lfgcl_env.pruning.structure.layers import BATCH_NORMS, does_more, layer_kind

Value = list[Tensor]
"""A node's value, one tensor per chunk of images."""

_ADDITIONS = {operator.add, operator.iadd, torch.add}
_RELUS = {F.relu, torch.relu}
_OUT_OF_PLACE = {operator.iadd: operator.add, operator.imul: operator.mul, F.relu_: F.relu}


class NoGraph(ValueError):
    """Says why a network's graph of operations cannot be had, and what works without one.

    Args:
        reason: one phrase.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        """Name a repair that needs none."""
        return f"{self.reason}: choose repair='least_squares' (--repair least_squares)"


def trace(network: nn.Module, cut: Container[str] = ()) -> fx.Graph:
    """Trace the graph of operations of a network that is called with images alone.

    Args:
        network: to be traced.
        cut: names of modules that may lose heads before the graph is run.

    Raises:
        NoGraph: if ``torch.fx`` cannot trace it, as where its flow depends on values, or a value
            is used after it was changed in place, which the graph does not show.
    """
    try:
        graph = trace_once(network, cut)
    except Exception as error:
        raise NoGraph(
            "sequential repair needs a network that torch.fx can trace, and this one cannot be "
            f"({type(error).__name__})"
        ) from error
    for node in graph.nodes:
        if node.op == "get_attr" and str(node.target).startswith("_tensor_constant"):
            raise NoGraph(
                "sequential repair needs a network whose tensors come from its input and its "
                "parameters, and this one computes others on the way"
            )
    _check_in_place(network, graph)
    return graph


def _check_in_place(network: nn.Module, graph: fx.Graph) -> None:
    """Refuse a graph in which a value is used after an operation has changed it in place."""
    places = {node: place for place, node in enumerate(graph.nodes)}
    for node, place in places.items():
        if _is_in_place(network, node) and node.all_input_nodes:
            changed = node.all_input_nodes[0]
            if any(places[user] > place for user in changed.users):
                raise NoGraph(
                    "sequential repair needs a network whose values are not used after they were "
                    f"changed in place, as by {node.target}"
                )


def _is_in_place(network: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(getattr(network.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        name = str(node.target)
        return name.endswith("_") and not name.endswith("__")
    if node.op != "call_function":
        return False
    inplace = node.target in _OUT_OF_PLACE or getattr(node.target, "__name__", "").endswith("_")
    return inplace or bool(node.kwargs.get("inplace"))


class GraphRunner:
    """Runs a network's operations one by one, in chunks of images, and holds their values.

    Args:
        network: to be run; it may be changed between operations.
        images: chunks of images.
    """

    def __init__(self, network: nn.Module, images: Value) -> None:
        self._network = network
        self._images = images
        self._values: dict[fx.Node, Any] = {}

    def __getitem__(self, node: fx.Node) -> Any:
        return self._values[node]

    def __setitem__(self, node: fx.Node, value: Any) -> None:
        self._values[node] = value

    def forget(self, nodes: Iterable[fx.Node]) -> None:
        """Drop the values of nodes."""
        for node in nodes:
            self._values.pop(node, None)

    def run(self, node: fx.Node) -> None:
        """Evaluate a node; the values of its inputs must be there."""
        if node.op == "placeholder":
            self._values[node] = self._images
        elif node.op == "get_attr":
            value: Any = self._network
            for name in str(node.target).split("."):
                value = getattr(value, name)
            self._values[node] = [value] * len(self._images)
        elif node.op != "output":
            self._values[node] = [self._call(node, i) for i in range(len(self._images))]

    def _call(self, node: fx.Node, chunk: int) -> Any:
        def here(argument: fx.Node) -> Any:
            return self._values[argument][chunk]

        arguments: tuple[Any, ...] = fx.map_arg(node.args, here)  # type: ignore[assignment]
        keywords = dict(fx.map_arg(node.kwargs, here))
        if keywords.get("inplace"):
            keywords["inplace"] = False
        if node.op == "call_module":
            module = self._network.get_submodule(str(node.target))
            if type(module) is nn.ReLU and not does_more(module):
                return F.relu(*arguments, *keywords.values())  # its input, under any name
            if getattr(module, "inplace", False):
                arguments = (arguments[0].clone(), *arguments[1:])
            return module(*arguments, **keywords)
        if node.op == "call_method":
            name = str(node.target)
            subject = arguments[0]
            if name.endswith("_") and not name.endswith("__"):
                subject = subject.clone()
            return getattr(subject, name)(*arguments[1:], **keywords)
        assert callable(node.target)
        function = _OUT_OF_PLACE.get(node.target, node.target)  # type: ignore[call-overload]
        return function(*arguments, **keywords)


@torch.no_grad()
def shapes_of(network: nn.Module, graph: fx.Graph, example: Tensor) -> dict[fx.Node, torch.Size]:
    """Return the shape of every value that is a tensor, for an example input."""
    runner = GraphRunner(network, [example])
    for node in graph.nodes:
        runner.run(node)
    values = {node: runner[node][0] for node in graph.nodes if node.op != "output"}
    return {node: value.shape for node, value in values.items() if isinstance(value, Tensor)}


def dense_module(network: nn.Module, node: fx.Node) -> nn.Module | None:
    """Return the convolution without groups or linear layer that a node calls, or None."""
    if node.op != "call_module":
        return None
    module = network.get_submodule(str(node.target))
    return module if layer_kind(module) in ("conv", "linear") else None


def is_plain_convolution(network: nn.Module, node: fx.Node) -> bool:
    """Whether a node calls a 2-D convolution that pads with zeros, grouped or not."""
    if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
        return False
    module = network.get_submodule(str(node.target))
    return can_convolve(module) and not does_more(module)


def batchnorm_after(network: nn.Module, node: fx.Node) -> fx.Node | None:
    """Find the BatchNorm that alone uses a node's value."""
    user = _only_user(node)
    if user is not None and user.op == "call_module":
        module = network.get_submodule(str(user.target))
        known = isinstance(module, BATCH_NORMS) and module.track_running_stats
        if known and not does_more(module):
            return user
    return None


def addition_after(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """Find the addition that alone uses a node's value, and its other operand."""
    user = _only_user(node)
    if user is None or len(user.all_input_nodes) != 2 or user.kwargs:
        return None
    added = user.op == "call_function" and user.target in _ADDITIONS
    added |= user.op == "call_method" and user.target in ("add", "add_")
    if not added or len(user.args) != 2:
        return None
    other = next(n for n in user.all_input_nodes if n is not node)
    return user, other


def rectifier_after(network: nn.Module, node: fx.Node) -> tuple[fx.Node, Rectifier] | None:
    """Find the ReLU, capped or not, that alone uses a node's value."""
    user = _only_user(node)
    found = None if user is None else _rectifier(network, user)
    return None if user is None or found is None else (user, found)


def _rectifier(network: nn.Module, node: fx.Node) -> Rectifier | None:
    """Return what a node is if it is a rectifier, capped by a constant or not."""
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        if does_more(module):
            return None
        if isinstance(module, nn.Hardtanh):  # ReLU6 is one
            return _between(module.min_val, module.max_val)
        return Rectifier() if isinstance(module, nn.ReLU) else None
    if node.op == "call_method":
        return Rectifier() if node.target in ("relu", "relu_") else None
    if node.target is F.hardtanh:
        limits = dict(zip(("min_val", "max_val"), node.args[1:3], strict=False)) | node.kwargs
        return _between(limits.get("min_val", -1.0), limits.get("max_val", 1.0))
    if node.target is F.relu6:
        return Rectifier(6.0)
    return Rectifier() if node.target in _RELUS else None


def _between(low: object, high: object) -> Rectifier | None:
    known = low == 0 and isinstance(high, (int, float)) and high > 0
    return Rectifier(float(high)) if known else None  # type: ignore[arg-type]


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None
