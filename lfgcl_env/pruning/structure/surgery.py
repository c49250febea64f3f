"""Surgery: a physically smaller network."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lfgcl_env.pruning.structure.candidate import Candidate
from lfgcl_env.pruning.structure.slice_plan import SlicePlan


@torch.inference_mode(False)
def cut(network: nn.Module, plan: SlicePlan, kept: Sequence[NDArray[np.int64]]) -> nn.Module:
    """Return a copy of ``network`` without the channels that are not in ``kept``.

    Args:
        network: the baseline in evaluation mode; not changed.
        plan: its slice plan.
        kept: for each group, the indices of the channels that stay.

    Returns:
        The smaller network, in evaluation mode, with parameters as trainable as the baseline's.
        Others stand in for layers without outputs or inputs, see
        :mod:`lfgcl_env.pruning.structure.emptied`. All tensors have one layout, the one that
        files have: a loaded network then computes bit by bit the same.
    """
    candidate = Candidate(network, plan, layout=torch.contiguous_format)
    candidate.install(kept)
    smaller = candidate.network
    trainable = {name: p.requires_grad for name, p in network.named_parameters()}
    for name, parameter in smaller.named_parameters():
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
        # A constant has a bias that the layer it stands for may lack.
        weight = name.removesuffix("bias") + "weight"
        parameter.requires_grad_(trainable.get(name, trainable.get(weight, True)))
    return smaller
