"""Forward passes with BatchNorms folded into convolutions, and sums and ReLUs taken in place."""

from collections.abc import Container, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from torch import Tensor, fx, nn

from lfgcl_env.pruning.repair.conv_bn import convolve, fold
from lfgcl_env.pruning.repair.graph_runner import (
    GraphRunner,
    addition_after,
    rectifier_after,
    trace,
)
from lfgcl_env.pruning.repair.schedule import Fused, fuse
from lfgcl_env.pruning.structure.layers import has_hooks


class FusedForward:
    """Runs a network operation by operation, in about three quarters of the time on a CPU.

    The outputs are the network's own up to rounding. Modules that hooks read are called as they
    are; where they are no single operations, the whole network is.

    Args:
        network: in evaluation mode. Its tensors may be replaced later, and layers by others that
            stand in for them.
        cut: names of modules that may lose heads later.

    Raises:
        ValueError: if ``torch.fx`` cannot trace it.
    """

    def __init__(self, network: nn.Module, cut: Container[str] = ()) -> None:
        self._network, self._plain = network, network.forward
        graph = trace(network, cut)
        steps = fuse(network, graph, graph.nodes)
        self._steps = [step for step in steps if isinstance(step, fx.Node | Fused)]
        self._called = {str(node.target) for node in graph.nodes if node.op == "call_module"}
        self._sums = self._find_sums()
        after = [found for node in self._sums if (found := rectifier_after(network, node))]
        self._relus = {node for node, rectifier in after if rectifier.cap is None}
        self._unused = self._last_uses()
        self._folded: dict[Fused, tuple[Tensor, Tensor]] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the network run so inside the block, with the weights it has at the beginning."""
        network: Any = self._network
        for step in self._steps:
            if isinstance(step, Fused) and isinstance(self._module(step.conv), nn.Conv2d):
                self._folded[step] = fold(self._module(step.conv), self._module(step.norm))
        before = network.__dict__.get("forward")
        self._plain, network.forward = network.forward, self._run
        try:
            yield
        finally:
            del network.forward
            if before is not None:
                network.forward = before
            self._folded = {}

    def _find_sums(self) -> dict[fx.Node, tuple[Fused, fx.Node]]:
        """Map additions to the step that made an operand for them alone, and the other operand."""
        found: dict[fx.Node, tuple[Fused, fx.Node]] = {}
        for step in self._steps:
            if isinstance(step, Fused) and (addition := addition_after(step.node)):
                found.setdefault(addition[0], (step, addition[1]))
        return found

    def _last_uses(self) -> list[list[fx.Node]]:
        """Return the values that are not needed after every step."""
        last: dict[fx.Node, int] = {}
        for index, step in enumerate(self._steps):
            used = [step.input] if isinstance(step, Fused) else step.all_input_nodes
            for node in (*used, step.node if isinstance(step, Fused) else step):
                last[node] = index
        unused: list[list[fx.Node]] = [[] for _ in self._steps]
        for node, index in last.items():
            unused[index].append(node)
        return unused

    def _run(self, images: Tensor) -> Any:
        """Stand in for the network's own forward."""
        hooked = {
            name for name, module in self._network.named_modules() if name and has_hooks(module)
        }
        if not hooked <= self._called:
            return self._plain(images)
        values = GraphRunner(self._network, [images])
        for step, unused in zip(self._steps, self._unused, strict=True):
            if isinstance(step, Fused):
                values[step.node] = [self._run_fused(step, *values[step.input])]
            elif step.op == "output":
                return fx.map_arg(step.args[0], lambda node: values[node][0])
            else:
                self._run_node(values, step)
            values.forget(unused)
        return None

    def _run_fused(self, step: Fused, x: Tensor) -> Tensor:
        conv, norm = self._module(step.conv), self._module(step.norm)
        relu = self._module(step.relu) if step.relu and step.relu.op == "call_module" else None
        if step not in self._folded or any(m and has_hooks(m) for m in (conv, norm, relu)):
            value: Tensor = norm(conv(x))
            if relu is not None:
                return relu(value)  # type: ignore[no-any-return]
        else:
            value = convolve(conv, x, *self._folded[step])
        return value if step.relu is None else value.relu_()

    def _run_node(self, values: GraphRunner, node: fx.Node) -> None:
        module = self._module(node) if node.op == "call_module" else None
        if module is not None and has_hooks(module):

            def here(argument: fx.Node) -> Any:
                value = values[argument][0]
                return value.clone() if isinstance(value, Tensor) else value

            arguments, keywords = fx.map_arg((node.args, node.kwargs), here)  # type: ignore[misc]
            values[node] = [module(*arguments, **keywords)]
            return
        if node in self._relus:
            values[node] = [values[node.all_input_nodes[0]][0].relu_()]
            return
        if node in self._sums and self._sums[node][0] in self._folded:
            made, added = self._sums[node]
            mine, other = values[made.node][0], values[added][0]
            if isinstance(other, Tensor) and (mine.shape, mine.dtype) == (other.shape, other.dtype):
                values[node] = [mine.add_(other)]
                return
        values.run(node)

    def _module(self, node: fx.Node) -> nn.Module:
        return self._network.get_submodule(str(node.target))


@contextmanager
def fused(network: nn.Module) -> Iterator[None]:
    """Let a network run as :class:`FusedForward` does inside the block, if that is possible.

    It is not where a module is in training, with hooks, which tracing would call, and where tracing
    fails.
    """
    forward = None
    if not any(module.training or has_hooks(module) for module in network.modules()):
        with suppress(ValueError):
            forward = FusedForward(network)
    with forward.running() if forward else nullcontext():
        yield
