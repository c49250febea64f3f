"""Recovery: training a pruned network without labels, on its baseline's outputs."""

from lfgcl_env.recovery.recovering import Recovered, recover
from lfgcl_env.recovery.recovery_options import RecoveryOptions, with_labels

__all__ = ["Recovered", "RecoveryOptions", "recover", "with_labels"]
