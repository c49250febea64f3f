"""How objects are written for workers."""

from typing import Any

import cloudpickle
from torch import fx

from lfgcl_env.networks.one_thread_tracer import OneThreadTracer


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Has networks of ``torch.fx`` loaded by a tracer that leaves other threads alone."""

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, fx.GraphModule):
            return super().reducer_override(obj)
        rebuild, (body, *rest) = obj.__reduce__()
        if body.get("_tracer_cls") in (None, fx.Tracer):
            body["_tracer_cls"] = OneThreadTracer
        return rebuild, (body, *rest)


class Pickle:
    """A module like :mod:`cloudpickle`, as :func:`torch.save` asks for one."""

    Pickler = _Pickler
    dumps = staticmethod(cloudpickle.dumps)
