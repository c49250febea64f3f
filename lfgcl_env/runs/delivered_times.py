"""With a budget of latency: the delivered network is measured whole beside its baseline."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from annotated_types import MaxLen, MinLen
from torch import nn

from lfgcl_env.edge.value_checks import first_line
from lfgcl_env.latency.machine import machine
from lfgcl_env.latency.measuring import time_beside
from lfgcl_env.latency.runtimes import usable
from lfgcl_env.latency.timing import Timing
from lfgcl_env.networks.feeding import fed
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.runs.measured import StoredTiming

SECONDS = 5.0
"""For baseline and delivered network together."""

_log = logging.getLogger(__name__)

StoredTimes = Annotated[list[StoredTiming], MinLen(2), MaxLen(2)]
"""Those of :class:`DeliveredTimes` in a file, the baseline's first."""


@dataclass(frozen=True)
class DeliveredTimes:
    """Times of a forward pass of whole networks, by the clock that the budget's table is of.

    Attributes:
        baseline: of the unpruned network.
        delivered: of what is handed over.
    """

    baseline: Timing
    delivered: Timing

    @property
    def share(self) -> float:
        """The delivered network's median as a fraction of the baseline's."""
        return self.delivered.median / self.baseline.median

    def stored(self) -> list[dict[str, Any]]:
        """Return what a file holds, which :meth:`read` reads."""
        return [asdict(self.baseline), asdict(self.delivered)]

    @classmethod
    def read(cls, stored: list[Mapping[str, Any]] | None) -> "DeliveredTimes | None":
        """Return what a file holds; None where it holds none."""
        return None if stored is None else cls(*(Timing(**dict(one)) for one in stored))


def measure_delivered(problem: PruningProblem, network: nn.Module) -> DeliveredTimes | None:
    """Measure a delivered network and its baseline in turn, as the budget's table was measured.

    Args:
        problem: whose budget it was pruned to.
        network: on the CPU in evaluation mode.

    Returns:
        None without a budget of latency. None with a warning where they cannot be run here: a run
        may go on with its table on another machine.
    """
    if problem.budget_metric != "latency":
        return None
    table, feeding = problem.network.latency.table.belongs_to, problem.baseline.feeding
    baseline = problem.baseline.network
    try:
        runtime = usable(table["runtime"])
        with fed(baseline, feeding), fed(network, feeding):
            whole, pruned = time_beside(
                [baseline, network],
                problem.baseline.input_shape,
                runtime,
                int(table["batch"]),
                int(table["threads"]),
                SECONDS,
            )
        if not min(*whole, *pruned) > 0:
            raise ValueError("the clock of this machine is too coarse")
    except (ValueError, RuntimeError, ImportError) as error:
        _log.warning("the delivered network was not measured: %s", first_line(error))
        return None
    here = machine(runtime.name)
    if any(table.get(name) != value for name, value in here.items()):
        _log.warning(
            "the latency table is of another machine or other versions than the delivered network "
            "was measured on"
        )
    return DeliveredTimes(Timing.of(whole), Timing.of(pruned))
