"""Random numbers of PyTorch's global generator that leave no trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lfgcl_env.edge.fork_lock import ForkLock

_one_at_a_time = ForkLock()


@contextmanager
def own_draws(seed: int | None = None, device: torch.device | None = None) -> Iterator[None]:
    """Let the processor's global generator be drawn from in the block, and put it back behind it.

    Blocks of several threads follow each other: the generator is the process's, and they would draw
    each other's numbers and put back what another had seeded. A block that waits for another
    thread's never ends.

    Args:
        seed: what the generator starts from; None to go on from where it is.
        device: a GPU whose generator goes along. Those of others are left alone, which
            :func:`torch.manual_seed` would seed, too.
    """
    gpus = [device] if device is not None and device.type == "cuda" else []
    with _one_at_a_time, torch.random.fork_rng(gpus):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
            for gpu in gpus:
                with torch.cuda.device(gpu):
                    torch.cuda.manual_seed(seed)
        yield
