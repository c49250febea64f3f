"""Every argument that names a choice, with its choices: for checks, help texts and docs."""

from collections.abc import Iterable, Mapping

from lfgcl_env.pruning.budget.cost import METRICS
from lfgcl_env.pruning.criteria.orders import CRITERIA
from lfgcl_env.pruning.repair.batchnorm import REPAIRS
from lfgcl_env.pruning.score.similarities import SIMILARITIES
from lfgcl_env.pruning.structure.scope import SCOPES

CHOICES: Mapping[str, Iterable[str]] = {
    "budget_metric": METRICS,
    "criterion": CRITERIA,
    "repair": REPAIRS,
    "similarity": SIMILARITIES,
    "scope": SCOPES,
}
