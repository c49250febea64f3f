"""The engines by name."""

from collections.abc import Mapping

from lfgcl_env.edge.choices import check_choice
from lfgcl_env.edge.executors import Submits
from lfgcl_env.engine.processes import Processes
from lfgcl_env.engine.ray_actors import RayActors

ENGINES = ("serial", "processes", "ray")
"""``"serial"`` is this process; ``"processes"`` are workers on this machine; ``"ray"`` are workers
on the machines of a Ray cluster."""


def check_gpus(executor: Submits | None, device: str) -> None:
    """Refuse Ray's actors that take no part of a GPU, where a problem is scored on one.

    Raises:
        ValueError: if they do not.

    >>> check_gpus(None, "cuda")
    """
    on_ray = device.startswith("cuda") and isinstance(executor, RayActors)
    if on_ray and not executor.resources.get("GPU"):  # type: ignore[union-attr]
        raise ValueError(
            f"device {device!r} needs a part of a GPU for every worker, or Ray places them by CPUs "
            "alone, on machines without a GPU too, and on the first of several: pass "
            'ray_resources={"GPU": 0.25} (--ray-resources GPU=0.25), by which four workers share '
            "one"
        )


def asked_engine(
    engine: str | Submits | None,
    ray_address: str | None = None,
    ray_resources: Mapping[str, float] | None = None,
) -> str | Submits | None:
    """Return what is asked for: an engine, or Ray by one of its arguments alone; None for neither.

    >>> asked_engine(None, ray_resources={"GPU": 0.25})
    'ray'
    """
    for_ray = ray_address is not None or ray_resources is not None
    return "ray" if engine is None and for_ray else engine


def open_engine(
    engine: str | Submits | None,
    workers: int,
    *,
    ray_address: str | None = None,
    ray_resources: Mapping[str, float] | None = None,
) -> Submits | None:
    """Return an executor, or None for this process.

    Args:
        engine: a name, a user's own executor, or None for Ray where one of its arguments is given,
            and for processes where there is more than one worker.
        workers: how many there are.
        ray_address: for Ray, see :class:`RayActors`; other engines have no use for it.
        ray_resources: likewise.

    Raises:
        ValueError: for an unknown name, or several workers of engine ``"serial"``.
        ImportError: for Ray, if it is missing; names the extra to install.

    >>> open_engine(None, 1) is None
    True
    """
    asked = asked_engine(engine, ray_address, ray_resources)
    if not isinstance(asked, str | None):
        return asked
    name = asked or ("processes" if workers > 1 else "serial")
    check_choice(name, ENGINES, "engine")
    if name == "processes":
        return Processes(workers)
    if name == "ray":
        return RayActors(workers, address=ray_address, resources=ray_resources)
    if workers > 1:
        raise ValueError(f"engine 'serial' is this process alone, got workers={workers}")
    return None
