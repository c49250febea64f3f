"""The pruning core: groups, costs, budgets, criteria, repair, similarity, surgery and saving."""

from lfgcl_env.pruning.allocation import allocate
from lfgcl_env.pruning.cost import Cost
from lfgcl_env.pruning.criteria import CRITERIA
from lfgcl_env.pruning.evaluation import Evaluation
from lfgcl_env.pruning.groups import Exclusion, Group
from lfgcl_env.pruning.layers import Layer
from lfgcl_env.pruning.problem import PruningProblem
from lfgcl_env.pruning.repair import REPAIRS
from lfgcl_env.pruning.saving import load_pruned, read_structure, save_pruned
from lfgcl_env.pruning.scope import SCOPES
from lfgcl_env.pruning.similarity import SIMILARITIES

__all__ = [
    "CRITERIA",
    "REPAIRS",
    "SCOPES",
    "SIMILARITIES",
    "Cost",
    "Evaluation",
    "Exclusion",
    "Group",
    "Layer",
    "PruningProblem",
    "allocate",
    "load_pruned",
    "read_structure",
    "save_pruned",
]
