"""How much memory a forward pass of PyTorch needs, counted exactly."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(network: nn.Module, example: Tensor) -> int:
    """Count the most bytes that the tensors of a forward pass take at once.

    Parameters, buffers and the example count; what kernels allocate inside does not.

    Args:
        network: in evaluation mode.
        example: inputs (images, ...).
    """
    with torch.inference_mode(), _LiveTensors() as live:
        live.add([*network.parameters(), *network.buffers(), example])
        network(example)
    return live.peak


class _LiveTensors(TorchDispatchMode):
    """Follows every storage from the operation that makes it until it is freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        self._known: set[int] = set()

    def add(self, values: Sequence[Any]) -> None:
        """Count the tensors among these values, each storage once."""
        for value in values:
            if not isinstance(value, Tensor):
                continue
            storage = value.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self._known:
                self._known.add(key)
                self._now += size
                weakref.finalize(storage, self._remove, key, size)
        self.peak = max(self.peak, self._now)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        self.add(tree_leaves(made))
        return made
