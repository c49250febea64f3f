"""Every argument that names a choice, with its choices: for checks, help texts and docs."""

from collections.abc import Mapping
from typing import Any

from lfgcl_env.latency.runtimes import RUNTIMES
from lfgcl_env.pruning.criteria.criterion import CRITERIA
from lfgcl_env.pruning.repair.interface import REPAIRS
from lfgcl_env.pruning.score.similarities import SIMILARITIES
from lfgcl_env.pruning.structure.cost import METRICS
from lfgcl_env.pruning.structure.scope import SCOPES

CHOICES: dict[str, Mapping[str, Any]] = {
    "budget_metric": METRICS,
    "latency_runtime": RUNTIMES,
    "criterion": CRITERIA,
    "repair": REPAIRS,
    "similarity": SIMILARITIES,
    "scope": SCOPES,
}
"""The registry of every argument of :class:`~lfgcl_env.config.ProblemConfig` that is a name."""
