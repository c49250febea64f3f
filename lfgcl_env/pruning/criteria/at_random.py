"""A random order, which any other criterion has to beat."""

import numpy as np

from lfgcl_env.pruning.criteria.criterion import Context, Scores, criterion
from lfgcl_env.pruning.structure.groups import Group


@criterion("random")
def score_at_random(context: Context, group: Group) -> Scores:
    """Draw scores that depend on the seed and the group's name alone."""
    name = np.frombuffer(group.name.encode(), dtype=np.uint8)
    return np.random.default_rng([context.seed, *name.tolist()]).random(group.channels)
