"""Which groups of a network are pruned: those in scope, not protected, that can be cut exactly."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from lfgcl_env.edge.choices import check_choice
from lfgcl_env.edge.patterns import check_used, matches_any
from lfgcl_env.pruning.structure.groups import Exclusion, Group, Tracing
from lfgcl_env.pruning.structure.layers import names_of
from lfgcl_env.pruning.structure.tracing import find_groups
from lfgcl_env.pruning.structure.verification import split_exact

SCOPES: dict[str, str] = {
    "inner": "leaves alone the groups that an addition couples, such as residual streams",
    "all": "prunes every group that can be cut exactly",
}
"""Which groups are pruned, by name, and what that means."""

COUPLED = "an addition couples it (scope='all' prunes it, where that is exact)"


def find_prunable(
    network: nn.Module,
    example: Tensor,
    scope: str,
    layout: torch.memory_format,
    protect: Sequence[str] = (),
) -> Tracing:
    """Trace a network and keep the groups that are in scope and can be cut exactly.

    Args:
        network: in evaluation mode; not changed.
        example: inputs (images, channels, height, width).
        scope: a name in :data:`SCOPES`.
        layout: that the network can be run in.
        protect: patterns of modules whose layers keep their shapes, see
            :func:`lfgcl_env.edge.patterns.matches`.

    Raises:
        ValueError: for an unknown scope, a pattern that matches no module, or if nothing can be
            pruned; the message says why.
    """
    check_choice(scope, SCOPES, "scope")
    names = names_of(network)
    known = [[name] for together in names.values() for name in together if name]
    for pattern in protect:
        check_used([pattern], known, "protect", "matches no module of the network")
    tracing = find_groups(network, example, layout)
    only = tracing.training_only
    kept_whole = {group.name: _protection(group, protect, names) for group in tracing.groups}
    excluded = [*filter(None, kept_whole.values()), *tracing.excluded]
    free = [group for group in tracing.groups if kept_whole[group.name] is None]
    within = [group for group in tracing.groups if scope == "all" or not group.coupled]
    in_scope = [group for group in within if kept_whole[group.name] is None]
    coupled = [group for group in free if group not in in_scope]
    right, wrong = split_exact(network, in_scope, example, layout, only)
    if not right:
        if split_exact(network, coupled, example, layout, only)[0]:
            raise ValueError(
                f"no channels of this network can be pruned with scope={scope!r}, since additions "
                "couple all that can: choose scope='all' (--scope all)"
            )
        reasons = "; ".join(f"{e.name}: {e.reason}" for e in (*excluded, *wrong)[:3])
        reasons = reasons or (
            "no convolutions or linear layers are seen to run: there are none, or they run under "
            "torch.inference_mode; use torch.no_grad"
        )
        raise ValueError(f"no channels of this network can be pruned ({reasons})")
    explained = {exclusion.name for exclusion in tracing.excluded}  # as attention
    coupled = [group for group in coupled if group.name not in explained]
    excluded += [Exclusion(group.name, group.channels, COUPLED) for group in coupled]
    wrong = [exclusion for exclusion in wrong if exclusion.name not in explained]
    spared = [group for group in within if kept_whole[group.name] is not None]
    held, _ = split_exact(network, spared, example, layout, only)
    return replace(
        tracing, groups=tuple(right), excluded=(*excluded, *wrong), protected=tuple(held)
    )


def _protection(
    group: Group, protect: Sequence[str], names: Mapping[str, Sequence[str]]
) -> Exclusion | None:
    """Return why a group stays whole, if it reaches into a protected layer."""
    for member in group.members:
        for pattern in protect:
            if matches_any(pattern, names[member.layer]):
                reason = f"it reaches into {member.layer}, which protect={pattern!r} keeps as it is"
                if member.layer == group.name:
                    reason = f"protect={pattern!r} keeps it as it is"
                return Exclusion(group.name, group.channels, reason)
    return None
