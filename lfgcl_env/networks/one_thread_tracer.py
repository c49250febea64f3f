"""Tracing with ``torch.fx`` beside other threads."""

from collections.abc import Callable
from threading import get_ident
from typing import Any

from torch import fx, nn

from lfgcl_env.edge.fork_lock import ForkLock

one_at_a_time = ForkLock()
"""Is held by whoever traces, or loads networks that are traced anew as they are loaded."""


class OneThreadTracer(fx.Tracer):
    """Traces what its own thread does.

    While ``torch.fx`` traces, it takes every call of a module in the process, and every parameter
    that is read, for one of the network that it traces: other threads that run networks would fail,
    and threads that trace at once would leave ``nn.Module`` changed for good. This one lets others
    pass, and waits for them before it begins.
    """

    _thread = -1

    def trace(
        self,
        root: nn.Module | Callable[..., Any],
        concrete_args: dict[str, Any] | None = None,
    ) -> fx.Graph:
        """Trace a network; see :meth:`torch.fx.Tracer.trace`."""
        with one_at_a_time:
            self._thread = get_ident()
            return super().trace(root, concrete_args)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Return what a call of a module gives."""
        if get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return what reading a tensor or module gives."""
        if get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)
