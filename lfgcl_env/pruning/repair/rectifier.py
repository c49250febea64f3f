"""The nonlinearity that repairs reckon with: a ReLU, flat below zero, capped or not."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rectifier:
    """A ReLU, or one that is flat above its cap too, as ReLU6 and ``Hardtanh(0, 1)`` are.

    Attributes:
        cap: the largest value that it gives; None for a ReLU.

    >>> Rectifier(6.0)(torch.tensor([-1.0, 2.0, 7.0])).tolist()
    [0.0, 2.0, 6.0]
    """

    cap: float | None = None

    def __call__(self, values: Tensor) -> Tensor:
        """Return what comes out of it."""
        return values.relu() if self.cap is None else values.clamp(0, self.cap)

    def replace(self, values: Tensor) -> Tensor:
        """Do the same in place."""
        return values.relu_() if self.cap is None else values.clamp_(0, self.cap)

    def pull_back(self, gradient: Tensor, values: Tensor) -> Tensor:
        """Return the gradient where values pass, and zero where it is flat."""
        passed: Tensor
        if self.cap is None:
            passed = torch.ops.aten.threshold_backward(gradient, values, 0)
        else:
            passed = torch.ops.aten.hardtanh_backward(gradient, values, 0, self.cap)
        return passed

    def gate(self, wanted: Tensor, output: Tensor) -> Tensor:
        """Return what is positive where moving the output can change its distance from a target.

        That is not so where both lie below zero, or both above the cap.
        """
        high = torch.maximum(wanted, output)
        if self.cap is None:
            return high
        return torch.minimum(high, self.cap - torch.minimum(wanted, output))


class Goals:
    """Targets of a least-squares fit in front of a rectifier.

    Args:
        rectifier: that follows.
        wanted: the baseline's values.
    """

    def __init__(self, rectifier: Rectifier, wanted: Tensor) -> None:
        self._cap = rectifier.cap
        self._below, self._inside = wanted.le(0).to(wanted.dtype), rectifier(wanted)
        if self._cap is not None:
            self._beyond = wanted.ge(self._cap).to(wanted.dtype)

    def near(self, output: Tensor) -> Tensor:
        """Return of all targets that mean the same those that are nearest to an output.

        The output is overwritten. (A ``where`` takes three times as long.)
        """
        if self._cap is None:
            return output.clamp_(max=0).mul_(self._below).add_(self._inside)
        excess = (output - self._cap).clamp_(min=0).mul_(self._beyond)
        return output.clamp_(max=0).mul_(self._below).add_(self._inside).add_(excess)
