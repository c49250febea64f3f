"""The pruning core: groups, costs, budgets, criteria, repair, similarity, surgery and saving."""

from lfgcl_env.pruning.criteria.criterion import CRITERIA
from lfgcl_env.pruning.evaluation import Evaluation
from lfgcl_env.pruning.problem import PruningProblem
from lfgcl_env.pruning.registries import CHOICES
from lfgcl_env.pruning.repair.interface import REPAIRS
from lfgcl_env.pruning.score.similarities import SIMILARITIES
from lfgcl_env.pruning.sensitivities import allocate
from lfgcl_env.pruning.structure.cost import METRICS, Cost
from lfgcl_env.pruning.structure.groups import Exclusion, Group
from lfgcl_env.pruning.structure.layers import Layer
from lfgcl_env.pruning.structure.prunable_network import PrunableNetwork
from lfgcl_env.pruning.structure.saved_form import load_pruned, read_structure, save_pruned
from lfgcl_env.pruning.structure.scope import SCOPES

__all__ = [
    "CHOICES",
    "CRITERIA",
    "METRICS",
    "REPAIRS",
    "SCOPES",
    "SIMILARITIES",
    "Cost",
    "Evaluation",
    "Exclusion",
    "Group",
    "Layer",
    "PrunableNetwork",
    "PruningProblem",
    "allocate",
    "load_pruned",
    "read_structure",
    "save_pruned",
]
