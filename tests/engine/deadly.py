"""A layer that ends workers."""

import os
import signal

from torch import Tensor, nn


class Deadly(nn.Module):
    """Ends a process other than the one that made it, on inputs of so many channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.home = channels, os.getpid()

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == self.channels and os.getpid() != self.home:
            os.kill(os.getpid(), signal.SIGKILL)
        return x
