"""Tasks that say what a worker has of PyTorch; this module does not import it."""

import os
import sys


def has_torch(_shared: object, _item: int) -> bool:
    return "torch" in sys.modules


def threads_of_torch(_shared: object, _item: int) -> tuple[int, str]:
    import torch

    return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]
