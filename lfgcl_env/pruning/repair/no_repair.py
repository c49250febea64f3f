"""No repair: a candidate is scored as it was cut."""

from lfgcl_env.pruning.repair.interface import Repair, repair


@repair("none")
class NoRepair(Repair):
    """Leaves weights and statistics as they were cut."""
