"""Running a network operation by operation, so that layers can be refitted in between."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from lfgcl_env.pruning.structure.layers import BATCH_NORMS, layer_kind

Value = list[Tensor]
"""A node's value, one tensor per chunk of images."""

_ADDITIONS = {operator.add, operator.iadd, torch.add}
_RELUS = {F.relu, torch.relu, F.relu6}
_OUT_OF_PLACE = {operator.iadd: operator.add, operator.imul: operator.mul, F.relu_: F.relu}


def trace(network: nn.Module) -> fx.Graph:
    """Trace the network's graph of operations.

    Raises:
        ValueError: if ``torch.fx`` cannot trace it, because its flow depends on values.
    """
    try:
        return fx.symbolic_trace(network).graph
    except Exception as error:
        raise ValueError(
            "sequential repair needs a network that torch.fx can trace, and this one cannot be "
            f"({type(error).__name__}): search without a shortlist (--shortlist 0)"
        ) from error


class GraphRunner:
    """Evaluates a network's nodes on demand, in chunks, and drops values after their last use.

    Args:
        network: to be run; may be changed between evaluations of different nodes.
        graph: its graph.
        images: chunks of images.
        before: called with a node before it is evaluated.
    """

    def __init__(
        self,
        network: nn.Module,
        graph: fx.Graph,
        images: Value,
        before: Callable[[fx.Node], None] = lambda node: None,
    ) -> None:
        self.nodes = list(graph.nodes)
        self._network = network
        self._images = images
        self._before = before
        self._values: dict[fx.Node, Any] = {}
        index = {node: i for i, node in enumerate(self.nodes)}
        self._last_use = [
            max((index[user] for user in node.users), default=i)
            for i, node in enumerate(self.nodes)
        ]

    def value(self, index: int) -> Any:
        """Return the value of the node at ``index``, evaluating its inputs first."""
        node = self.nodes[index]
        pending = [] if node in self._values else [node]
        while pending:
            top = pending[-1]
            missing = self._missing(top)
            if not missing and top not in self._values:
                self._before(top)
                missing = self._missing(top)  # `before` may change and drop inputs
            if missing:
                pending += missing
                continue
            if top not in self._values:
                self._values[top] = self._evaluate(top)
            pending.pop()
        return self._values[node]

    def _missing(self, node: fx.Node) -> list[fx.Node]:
        return [n for n in node.all_input_nodes if n not in self._values]

    def keep(self, index: int, until: int) -> None:
        """Hold the value of a node at least until the node at ``until`` was evaluated."""
        self._last_use[index] = max(self._last_use[index], until)

    def drop(self, index: int) -> None:
        """Drop the value of a node whose network has changed."""
        self._values.pop(self.nodes[index], None)

    def forget(self, index: int) -> None:
        """Drop values that no node after ``index`` uses."""
        for i in range(index + 1):
            if self._last_use[i] <= index:
                self._values.pop(self.nodes[i], None)

    def _evaluate(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self._images
        if node.op == "get_attr":
            value: Any = self._network
            for name in str(node.target).split("."):
                value = getattr(value, name)
            return [value] * len(self._images)
        if node.op == "output":
            return None
        return [self._call(node, chunk) for chunk in range(len(self._images))]

    def _call(self, node: fx.Node, chunk: int) -> Any:
        def here(argument: fx.Node) -> Any:
            return self._values[argument][chunk]

        arguments: tuple[Any, ...] = fx.map_arg(node.args, here)  # type: ignore[assignment]
        keywords = dict(fx.map_arg(node.kwargs, here))
        if keywords.get("inplace"):
            keywords["inplace"] = False
        if node.op == "call_module":
            module = self._network.get_submodule(str(node.target))
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


def dense_module(network: nn.Module, node: fx.Node) -> nn.Module | None:
    """Return the convolution without groups or linear layer that a node calls, or None."""
    if node.op != "call_module":
        return None
    module = network.get_submodule(str(node.target))
    return module if layer_kind(module) in ("conv", "linear") else None


def batchnorm_after(network: nn.Module, node: fx.Node) -> fx.Node | None:
    """Find the BatchNorm that alone uses a node's value."""
    user = _only_user(node)
    if user is not None and user.op == "call_module":
        module = network.get_submodule(str(user.target))
        if isinstance(module, BATCH_NORMS) and module.track_running_stats:
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


def relu_after(network: nn.Module, node: fx.Node) -> fx.Node | None:
    """Find the ReLU that alone uses a node's value."""
    user = _only_user(node)
    if user is None:
        return None
    if user.op == "call_module":
        module = network.get_submodule(str(user.target))
        return user if isinstance(module, (nn.ReLU, nn.ReLU6)) else None
    if user.op == "call_method":
        return user if user.target in ("relu", "relu_") else None
    return user if user.target in _RELUS else None


def is_capped(network: nn.Module, relu: fx.Node) -> bool:
    """Whether a ReLU that :func:`relu_after` found is a ReLU6, flat at both ends."""
    if relu.op == "call_module":
        return isinstance(network.get_submodule(str(relu.target)), nn.ReLU6)
    return relu.target is F.relu6


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None
