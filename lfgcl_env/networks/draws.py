"""Random numbers of PyTorch's global generator that leave no trace."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch

_one_at_a_time = RLock()


@contextmanager
def own_draws(seed: int | None = None) -> Iterator[None]:
    """Let the processor's global generator be drawn from in the block, and put it back behind it.

    Blocks of several threads follow each other: the generator is the process's, and they would draw
    each other's numbers and put back what another had seeded.

    Args:
        seed: what the generator starts from; None to go on from where it is. Generators of other
            devices are left alone, which :func:`torch.manual_seed` would seed, too.
    """
    with _one_at_a_time, torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        yield
