"""Running a network in double precision, whatever precision its code asks for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class InDouble(TorchFunctionMode):
    """Takes float32 for float64 inside the block, where code asks for it by name.

    Some norms compute in float32 whatever they are given, as CLIP's does, with weights that have
    become double.

    >>> with InDouble():
    ...     [torch.ones(1).double().float().dtype, torch.zeros(1, dtype=torch.float32).dtype]
    [torch.float64, torch.float64]
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of PyTorch."""
        wide = Tensor.double if func is Tensor.float else func
        named = {name: _widened(value) for name, value in (kwargs or {}).items()}
        return wide(*map(_widened, args), **named)


def _widened(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value
