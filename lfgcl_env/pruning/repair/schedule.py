"""The order in which a network's operations run and its layers are refitted, found once.

A layer is refitted before it runs, when the values that its fit needs are there: its input, and the
other operand where its output goes into an addition. So the branch that this operand comes from is
run, and refitted, first.
"""

from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass

from torch import Tensor, fx, nn

from lfgcl_env.pruning.repair.conv_bn import can_convolve
from lfgcl_env.pruning.repair.graph_runner import (
    addition_after,
    batchnorm_after,
    dense_module,
    is_plain_convolution,
    rectifier_after,
    shapes_of,
    trace,
)
from lfgcl_env.pruning.repair.rectifier import Rectifier
from lfgcl_env.pruning.structure.fixed_layers import find_refittable


@dataclass(frozen=True)
class Refit:
    """A layer to be refitted.

    Attributes:
        layer: its name.
        number: its call's place among all operations.
        node: its call.
        norm: the BatchNorm that alone uses its output, or None.
        point: where its contribution ends: behind the BatchNorm, and behind the addition that alone
            uses it.
        other: the other operand of that addition, or None.
        relu: the rectifier that alone uses the value at the point, or None.
        path: the calls of the layer that alone makes this one's input, of its BatchNorm and of the
            rectifier between; empty where the input is made otherwise.
        between: that rectifier; None where there is no path.
    """

    layer: str
    number: int
    node: fx.Node
    norm: fx.Node | None
    point: fx.Node
    other: fx.Node | None
    relu: Rectifier | None
    path: tuple[fx.Node, ...]
    between: Rectifier | None

    @property
    def input(self) -> fx.Node:
        """The node whose value the layer reads."""
        return self.node.all_input_nodes[0]

    @property
    def source(self) -> fx.Node | None:
        """The node whose value the producer reads, or None."""
        return self.path[0].all_input_nodes[0] if self.path else None


@dataclass(frozen=True)
class Fused:
    """A convolution, its BatchNorm and a ReLU that is run as one operation in a pruned network.

    Attributes:
        conv: the convolution's call.
        norm: the BatchNorm's, which alone uses its value.
        relu: the ReLU's, which alone uses the BatchNorm's value, or None.
    """

    conv: fx.Node
    norm: fx.Node
    relu: fx.Node | None

    @property
    def node(self) -> fx.Node:
        """The node whose value comes out."""
        return self.relu or self.norm

    @property
    def input(self) -> fx.Node:
        """The node whose value goes in."""
        return self.conv.all_input_nodes[0]


Step = fx.Node | Fused | Refit


def fuse(network: nn.Module, graph: fx.Graph, steps: Iterable[Step]) -> list[Step]:
    """Make one step of convolutions, their BatchNorms and ReLUs, at the place of the last.

    Args:
        network: in evaluation mode.
        graph: of its operations.
        steps: what is done in which order, among it all operations that are to be fused.
    """
    last: dict[fx.Node, Fused] = {}
    inside: set[fx.Node] = set()
    for node in graph.nodes:
        norm = batchnorm_after(network, node)
        if norm is None or not is_plain_convolution(network, node):
            continue
        after = rectifier_after(network, norm)
        relu = after[0] if after is not None and after[1].cap is None else None
        fused = Fused(node, norm, relu)
        last[fused.node] = fused
        inside |= {node, norm}
    return [
        last.get(step, step) if isinstance(step, fx.Node) else step
        for step in steps
        if not isinstance(step, fx.Node) or step in last or step not in inside
    ]


class Schedule:
    """What to do in which order, for the baseline and for every network cut from it.

    Args:
        network: the baseline in evaluation mode.
        example: an input, (1, channels, height, width); shapes are read with it.
        cut: names of modules that networks cut from it may have fewer heads in.

    Raises:
        ValueError: if ``torch.fx`` cannot trace it; the message names the way out.

    Attributes:
        steps: operations to run, and layers to refit before their own operation runs.
        refits: these layers in that order.
        unused: for every step, the values that a pruned network needs no more after it.
        ahead: for every step, what the baseline runs before it.
        baseline_unused: for every step, the values that the baseline needs no more after it.
    """

    def __init__(self, network: nn.Module, example: Tensor, cut: Container[str] = ()) -> None:
        self._network = network
        self.graph = trace(network, cut)
        self._shapes = shapes_of(network, self.graph, example)
        self._order = {node: i for i, node in enumerate(self.graph.nodes)}
        self._calls = Counter(n.target for n in self.graph.nodes if n.op == "call_module")
        self._refittable = find_refittable(network)
        self._solving: set[fx.Node] = set()
        self._done: set[fx.Node] = set()
        self.steps: list[Step] = []
        for node in self.graph.nodes:
            self._visit(node)
        self._end_at_the_last_refit()
        self.steps = fuse(network, self.graph, self.steps)
        self.refits = [step for step in self.steps if isinstance(step, Refit)]
        self.unused = self._last_uses(self._uses())
        self.ahead, uses = self._run_ahead()
        self.baseline_unused = self._last_uses(uses)

    def _visit(self, node: fx.Node) -> None:
        """Schedule a node, and before it whatever it needs."""
        if node in self._done:
            return
        if self._may_refit(node):
            self._solving.add(node)
            self.steps.append(self._refit(node))
            self._solving.discard(node)
        self.steps.append(node)
        self._done.add(node)

    def _may_refit(self, node: fx.Node) -> bool:
        if dense_module(self._network, node) is None or node.target not in self._refittable:
            return False
        # What is called several times would be refitted to one call and lost for the others.
        norm = batchnorm_after(self._network, node)
        return all(self._calls[called.target] == 1 for called in (node, norm) if called)

    def _refit(self, node: fx.Node) -> Refit:
        norm = batchnorm_after(self._network, node)
        point, other = norm or node, None
        addition = addition_after(point)
        if addition is not None and self._is_plain(*addition):
            pending = self._pending(addition[1])
            if not self._solving & pending:
                for before in sorted(pending, key=self._order.__getitem__):
                    self._visit(before)
                point, other = addition
        after = rectifier_after(self._network, point)
        relu = None if after is None else after[1]
        path, between = self._path(node)
        name, number = str(node.target), self._order[node]
        return Refit(name, number, node, norm, point, other, relu, path, between)

    def _is_plain(self, addition: fx.Node, other: fx.Node) -> bool:
        """Return whether an addition's operands are computed, and have its shape: no broadcast."""
        shapes = [self._shapes.get(node) for node in (addition, *addition.all_input_nodes)]
        return other.op != "get_attr" and all(shape == shapes[0] for shape in shapes)

    def _pending(self, node: fx.Node) -> set[fx.Node]:
        """Return a node and all that it depends on, without what is scheduled already."""
        found: set[fx.Node] = set()
        left = [node]
        while left:
            one = left.pop()
            if one not in self._done and one not in found:
                found.add(one)
                left += one.all_input_nodes
        return found

    def _path(self, consumer: fx.Node) -> tuple[tuple[fx.Node, ...], Rectifier | None]:
        """Return the calls of what feeds a consumer alone, and the rectifier among them."""
        nothing = (), None
        relu = consumer.all_input_nodes[0]
        if len(relu.users) != 1 or not relu.all_input_nodes:
            return nothing
        before = relu.all_input_nodes[0]
        after = rectifier_after(self._network, before)
        if after is None or after[0] is not relu:
            return nothing
        producer = before if dense_module(self._network, before) is not None else None
        if producer is None and before.all_input_nodes:
            producer = before.all_input_nodes[0]
            if batchnorm_after(self._network, producer) is not before:
                return nothing
        if producer is None:
            return nothing
        first = dense_module(self._network, producer)
        second = dense_module(self._network, consumer)
        if first is None or second is None or not (can_convolve(first) and can_convolve(second)):
            return nothing
        if not self._may_refit(producer):
            return nothing
        path = (producer, relu) if before is producer else (producer, before, relu)
        return path, after[1]

    def _end_at_the_last_refit(self) -> None:
        while self.steps and not isinstance(self.steps[-1], Refit):
            self.steps.pop()

    def _uses(self) -> dict[fx.Node, int]:
        """Map every node that a pruned network runs to the last step that uses its value."""
        last: dict[fx.Node, int] = {}
        for index, step in enumerate(self.steps):
            if isinstance(step, Refit):
                wanted: Iterable[fx.Node | None] = (step.input, step.other, step.source)
            elif isinstance(step, Fused):
                wanted = (step.node, step.input)
            else:
                wanted = (step, *step.all_input_nodes)
            for node in wanted:
                if node is not None:
                    last[node] = index
        return last

    def _run_ahead(self) -> tuple[list[list[fx.Node]], dict[fx.Node, int]]:
        """Return what the baseline runs before every step, and the last use of every value."""
        ahead: list[list[fx.Node]] = []
        last: dict[fx.Node, int] = {}
        self._done = set()
        for index, step in enumerate(self.steps):
            ahead.append([])
            if isinstance(step, Refit):
                ahead[-1] = sorted(self._pending(step.point), key=self._order.__getitem__)
                self._done |= set(ahead[-1])
                last[step.point] = index
            for node in ahead[-1]:
                for used in (node, *node.all_input_nodes):
                    last[used] = index
        return ahead, last

    def _last_uses(self, last: dict[fx.Node, int]) -> list[list[fx.Node]]:
        unused: list[list[fx.Node]] = [[] for _ in self.steps]
        for node, index in last.items():
            unused[index].append(node)
        return unused
