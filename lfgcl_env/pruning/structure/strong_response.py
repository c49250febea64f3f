"""Making visible what local response norms mix."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class StrongResponse(TorchFunctionMode):
    """Lets local response norms (Krizhevsky et al., 2012) weigh neighbours fully inside the block.

    They divide by a sum over neighbouring channels, so that a channel's neighbours matter to it:
    by 1e-4 for the usual ``alpha``, which activations of order 1 hide from comparisons and larger
    ones do not.

    >>> import torch
    >>> with StrongResponse():
    ...     float(F.local_response_norm(torch.ones(1, 1, 1), 1, beta=1.0))
    0.5
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of PyTorch."""
        if func is F.local_response_norm:
            return _respond(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _respond(input: Any, size: int, alpha: float = 1.0, beta: float = 0.75, k: float = 1.0) -> Any:
    return F.local_response_norm(input, size, max(alpha, 1.0), beta, k)
