"""This process's connection to Ray, which executors share."""

import os
import signal
import socket
import threading
from collections.abc import Mapping
from math import ceil
from typing import Any
from weakref import WeakSet

_PATIENCE = 20.0  # seconds that a cluster has to answer

_lock = threading.Lock()
_users: WeakSet[object] = WeakSet()  # executors that have not ended
_opened: int | None = None  # the process that did so for them; a fork of it ends nothing


def import_ray() -> Any:
    """Return the module.

    Raises:
        ImportError: if it is missing; names the extra to install.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("engine 'ray' needs Ray: run `pip install lfgcl-env[ray]`") from error
    return ray


def connect(user: object, address: str | None, needed: Mapping[str, float]) -> None:
    """Connect to Ray, unless this process is.

    Args:
        user: the executor that needs it.
        address: of a cluster; None for RAY_ADDRESS, else a Ray on this machine alone, which is
            started.
        needed: what such a Ray has of every resource.

    Raises:
        ConnectionError: if there is no such cluster.
    """
    global _opened
    ray = import_ray()
    with _lock:
        if not ray.is_initialized():
            _open(ray, address or os.environ.get("RAY_ADDRESS") or "local", needed)
            _opened = os.getpid()
        _users.add(user)


def leave(user: object) -> None:
    """Disconnect with the last executor, and end the Ray that was started; not a user's own."""
    global _opened
    with _lock:
        _users.discard(user)
        if _opened == os.getpid() and not _users:
            ray = import_ray()
            ray.shutdown()
            _show_events(shown=True)
            _opened = None


def _open(ray: Any, address: str, needed: Mapping[str, float]) -> None:
    amounts: dict[str, Any] = {}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        others = {name: ceil(most) for name, most in needed.items() if name not in ("CPU", "GPU")}
        amounts = {"num_cpus": ceil(needed.get("CPU", 0)), "resources": others}
        amounts["include_dashboard"] = False
    here = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    _show_events(shown=False)
    try:
        _check_reachable(address)
        ray.init(address, log_to_driver=False, logging_level="error", **amounts)
    except Exception as error:
        _show_events(shown=True)
        reason = " ".join(str(error).split())
        raise ConnectionError(
            f"cannot connect to Ray at {address!r} ({type(error).__name__}: {reason[:300]}): "
            "`ray start --head` starts a cluster, one with a token needs RAY_AUTH_MODE=token, and "
            "without an address this machine is one"
        ) from error
    if here:  # Ray's own handler would wait for all tasks
        signal.signal(signal.SIGTERM, before)


def _check_reachable(address: str) -> None:
    """Raise OSError where nobody listens, for which Ray waits many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()


def _show_events(*, shown: bool) -> None:
    """Let Ray print what happens to nodes and workers, or not; it has no setting for it."""
    from ray._private import worker

    worker._worker_logs_enabled = shown
