"""How many threads PyTorch has in a process that was forked."""

import os
import sys

_settled = os.getpid()  # the process whose number of threads is right


def set_threads(threads: int) -> None:
    """Set how many threads this process has, forked or not.

    Where PyTorch is not imported yet, it will read so from the environment; it may take fewer then
    where there are fewer cores.
    """
    global _settled
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)
    else:
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    _settled = os.getpid()


def leave_threads_of_parent() -> None:
    """Use one thread in a forked process, unless :func:`set_threads` said how many.

    A fork inherits OpenMP's thread pool without its threads, and waits for them forever.
    """
    if os.getpid() != _settled:
        set_threads(1)
