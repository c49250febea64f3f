"""The engines by name."""

from lfgcl_env.config import Submits
from lfgcl_env.edge.choices import check_choice
from lfgcl_env.engine.processes import Processes

ENGINES = ("serial", "processes")
"""``"serial"`` is this process; ``"processes"`` are workers on this machine."""


def open_engine(engine: str | Submits | None, workers: int) -> Submits | None:
    """Return an executor, or None for this process.

    Args:
        engine: a name, a user's own executor, or None for processes where there is more than one
            worker.
        workers: how many there are.

    Raises:
        ValueError: for an unknown name, or several workers of engine ``"serial"``.

    >>> open_engine(None, 1) is None
    True
    """
    if not isinstance(engine, str | None):
        return engine
    name = engine or ("processes" if workers > 1 else "serial")
    if check_choice(name, ENGINES, "engine") == "processes":
        return Processes(workers)
    if workers > 1:
        raise ValueError(f"engine 'serial' is this process alone, got workers={workers}")
    return None
