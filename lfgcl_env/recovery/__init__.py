"""Recovery: training a pruned network without labels, on its baseline's outputs."""

from lfgcl_env.recovery.options import RecoveryOptions
from lfgcl_env.recovery.recover import Recovered, recover

__all__ = ["Recovered", "RecoveryOptions", "recover"]
