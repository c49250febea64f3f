"""Which groups of a network are pruned: those in scope that can be cut exactly."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from lfgcl_env.edge.choices import check_choice
from lfgcl_env.pruning.structure.groups import Exclusion, Tracing, find_groups
from lfgcl_env.pruning.structure.verification import split_exact

SCOPES: dict[str, str] = {
    "inner": "leaves alone the groups that an addition couples, such as residual streams",
    "all": "prunes every group that can be cut exactly",
}
"""Which groups are pruned, by name, and what that means."""


def find_prunable(
    network: nn.Module, example: Tensor, scope: str, layout: torch.memory_format
) -> Tracing:
    """Trace a network and keep the groups that are in scope and can be cut exactly.

    Args:
        network: in evaluation mode; not changed.
        example: inputs (images, channels, height, width).
        scope: a name in :data:`SCOPES`.
        layout: that the network can be run in.

    Raises:
        ValueError: for an unknown scope, or if nothing can be pruned; the message says why.
    """
    check_choice(scope, SCOPES, "scope")
    tracing = find_groups(network, example)
    in_scope = [group for group in tracing.groups if scope == "all" or not group.coupled]
    right, wrong = split_exact(network, in_scope, example, layout)
    if not right:
        reasons = "; ".join(f"{e.name}: {e.reason}" for e in (*tracing.excluded, *wrong)[:3])
        raise ValueError(f"no channels of this network can be pruned ({reasons})")
    out_of_scope = [
        Exclusion(group.name, group.channels, "an addition couples it (scope='all' includes it)")
        for group in tracing.groups
        if group not in in_scope
    ]
    excluded = (*tracing.excluded, *out_of_scope, *wrong)
    return replace(tracing, groups=tuple(right), excluded=excluded)
