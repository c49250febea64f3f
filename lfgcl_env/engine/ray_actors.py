"""Workers on many machines: actors of a Ray cluster, which are replaced when they die."""

import io
import logging
import os
import re
import runpy
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import numpy as np

from lfgcl_env.edge.named_code import make_importable
from lfgcl_env.edge.threads import set_threads
from lfgcl_env.edge.value_checks import check_cluster, check_resources
from lfgcl_env.engine import ray_connection
from lfgcl_env.engine.shared import Shared, read_shared
from lfgcl_env.engine.worker_executor import TRIES, WorkerDied, WorkerExecutor, answer

_PATIENCE = 60.0  # seconds without any worker, until a message says so

_logger = logging.getLogger(__name__)


class RayActors(WorkerExecutor):
    """An executor whose tasks run in actors of a Ray cluster.

    Actors start when they are first needed and stay. A task goes to one that runs, also where the
    cluster has no place for others, and to another one if its own dies with its process or its
    node. A :class:`~lfgcl_env.engine.Shared` object goes to Ray's object store once, and every
    actor takes it from there once. A Ray that this process is connected to is used, and left as it
    is; else it is connected to at the first task, and disconnected from with the last executor.

    Args:
        workers: most actors.
        address: of a cluster, ``"auto"`` for that of this machine; None for RAY_ADDRESS, else a Ray
            on this machine alone, with a place for every worker.
        resources: what every actor takes, as in ``{"CPU": 1, "GPU": 0.25}``; None for a processor
            for each of its threads.
        threads: of PyTorch in each of them.

    Attributes:
        resources: what every actor takes.

    Raises:
        ImportError: if Ray is missing; names the extra to install.
        ValueError: for wrong arguments.
    """

    def __init__(
        self,
        workers: int = 1,
        *,
        address: str | None = None,
        resources: Mapping[str, float] | None = None,
        threads: int = 1,
    ) -> None:
        super().__init__(workers, threads)
        self._ray = ray_connection.import_ray()
        self._address = check_cluster(address)
        self.resources = {"CPU": self.threads} | dict(check_resources(resources) or {})
        self._changed = threading.Condition(self._lock)
        self._idle: list[_Actor] = []
        self._takers = 0  # threads that want an actor
        self._failed = 0  # actors that ended before they took tasks, since one did
        self._why_failed = ""
        self._told = False  # that the cluster may have no place
        self._storing = threading.Lock()
        self._stored: weakref.WeakKeyDictionary[Shared[Any], Any] = weakref.WeakKeyDictionary()

    def connect(self) -> None:
        """Connect to Ray.

        Raises:
            ConnectionError: if there is no such cluster.
        """
        needed = {name: self.workers * amount for name, amount in self.resources.items()}
        ray_connection.connect(self, self._address, needed)

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Call a function in an actor; see :meth:`WorkerExecutor.submit`."""
        self.connect()
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError:  # after the end
            ray_connection.leave(self)
            raise

    def interrupt(self) -> None:
        """Give up all tasks that are being done; others still begin, in actors that start anew."""
        with self._changed:
            self._interrupts += 1
            workers = list(self._all)
            self._all.clear()
            self._idle.clear()
            self._changed.notify_all()
        for worker in workers:
            worker.stop()

    def _pack(self, task: tuple[Any, ...]) -> "_Task":
        """Return a task whose shared objects go by their keys."""
        file = io.BytesIO()
        packer = _Packer(file)
        packer.dump(task)
        return _Task(file.getvalue(), packer.shared, self._store)

    def _store(self, shared: Sequence[Shared[Any]]) -> dict[str, Any]:
        """Return references to objects in Ray's store, by their keys."""
        with self._storing:
            for one in shared:
                if one not in self._stored:
                    self._stored[one] = self._ray.put(np.fromfile(one.path, dtype=np.uint8))
            return {one.key: self._stored[one] for one in shared}

    def _take(self, interrupts: int) -> "_Actor":
        """Return an actor that runs and has no task; start one where there is a place."""
        while True:
            with self._changed:
                self._takers += 1
                try:
                    new = self._idle_or_new(interrupts)
                finally:
                    self._takers -= 1
                if new.started:
                    return new
            try:
                self._start(new)
            except BaseException:  # Ray refuses what it is to take, such as 1.5 GPUs
                self._discard(new)
                raise
            if interrupts != self._interrupts:
                self._discard(new)

    def _idle_or_new(self, interrupts: int) -> "_Actor":
        while True:
            if interrupts != self._interrupts:
                raise CancelledError
            if self._failed >= TRIES * self.workers:
                raise WorkerDied("", self._why_failed, started=False)
            if self._idle:
                return self._idle.pop()
            starting = sum(not actor.started for actor in self._all)
            if len(self._all) < self.workers and starting < self._takers:
                new = _Actor(self._ray)
                self._all.add(new)
                return new
            waited = not self._changed.wait(_PATIENCE)
            if waited and not self._told and not any(actor.started for actor in self._all):
                self._told = True
                _logger.warning(
                    "Ray has started no worker for %g s: each takes %s, for which the cluster may "
                    "have no place",
                    _PATIENCE,
                    self.resources,
                )

    def _start(self, actor: "_Actor") -> None:
        resources = dict(self.resources)
        kind = self._ray.remote(_Serving).options(
            num_cpus=resources.pop("CPU"),
            num_gpus=resources.pop("GPU", 0),
            resources=resources,
            max_restarts=0,
        )
        actor.handle = kind.remote(
            self.threads, _versions(), [os.path.abspath(folder) for folder in sys.path]
        )
        self._check(actor)

    def _check(self, actor: "_Actor") -> None:
        """Have an actor taken for idle once it answers, or forgotten if it is dead."""
        mine = weakref.ref(self)

        def note(answered: "Future[Any]") -> None:  # in a thread of Ray's, which must not wait
            executor = mine()
            if executor is not None:
                executor._note(actor, answered.exception())

        actor.handle.ready.remote().future().add_done_callback(note)

    def _note(self, actor: "_Actor", error: BaseException | None) -> None:
        with self._changed:
            if error is not None:
                known = actor in self._all  # and was not ended by this process
                self._all.discard(actor)
                if known and not actor.started:
                    hopeless = getattr(error, "actor_init_failed", False)
                    self._failed += TRIES * self.workers if hopeless else 1
                    self._why_failed = _reason(error)
            elif actor in self._all:
                actor.started, self._failed, self._told = True, 0, False
                self._idle.append(actor)
            self._changed.notify_all()

    def _give_back(self, worker: "_Actor") -> None:
        with self._changed:
            if worker in self._all:
                self._idle.append(worker)
            self._changed.notify()

    def _discard(self, worker: "_Actor") -> None:
        """End an actor; check those without a task, which may have died with it."""
        with self._changed:
            self._all.discard(worker)
            unsure, self._idle = self._idle, []
            self._changed.notify_all()
        worker.stop()
        for actor in unsure:
            self._check(actor)

    def _end_workers(self) -> None:
        with self._changed:
            workers = list(self._all)
            self._all.clear()
            self._idle.clear()
        for worker in workers:
            worker.stop()
        self._stored.clear()
        ray_connection.leave(self)


class _Actor:
    """An actor, as this process sees it."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self.handle: Any = None
        self.started, self.why = False, ""

    def call(self, task: "_Task") -> bytes:
        """Have it do a task, and return its answer."""
        keys = [shared.key for shared in task.shared]
        found = self._ask(task.packed, keys)
        if found is None:
            try:
                stored = task.store(task.shared)
            except OSError as error:  # the actor is not to blame
                raise RuntimeError(f"workers cannot be sent what they share: {error}") from error
            found = self._ask(task.packed, keys, stored)
        assert found is not None
        return found

    def _ask(self, *arguments: Any) -> bytes | None:
        try:
            found: bytes | None = self._ray.get(self.handle.call.remote(*arguments))
        except self._ray.exceptions.RayError as error:
            self.why = _reason(error)
            raise EOFError(self.why) from error
        return found

    def stop(self) -> None:
        """Have it end at once."""
        if self.handle is not None:
            with suppress(Exception):  # it may have ended, or Ray itself
                self._ray.kill(self.handle)


class _Task(NamedTuple):
    packed: bytes
    shared: list[Shared[Any]]
    store: Any


class _Packer(cloudpickle.CloudPickler):  # type: ignore[misc]
    """Pickles a task; its shared objects stay here, and what stands for them is written."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.shared: list[Shared[Any]] = []

    def reducer_override(self, value: Any) -> Any:
        """Return how to write a value."""
        if isinstance(value, Shared):
            self.shared.append(value)
            return _InStore, (value.key, value.folders)
        return super().reducer_override(value)


class _InStore(Shared[Any]):
    """What stands for a shared object in an actor, which takes it from Ray's store."""

    references: Mapping[str, Any] = {}

    def __init__(self, key: str, folders: tuple[str, ...]) -> None:
        make_importable(folders)
        self.key, self.folders = key, folders

    def _load(self) -> Any:
        ray = ray_connection.import_ray()
        content = io.BytesIO(ray.get(self.references[self.key]).data)
        return read_shared(content)


class _Serving:
    """Does tasks; runs in an actor, which imports PyTorch with the first task that needs it."""

    def __init__(self, threads: int, versions: tuple[str, str], folders: Sequence[str]) -> None:
        if _versions() != versions:
            raise ValueError(
                "scores would differ: this process has lfgcl-env {} with PyTorch {}, a machine of "
                "the cluster {} with {}".format(*versions, *_versions())
            )
        make_importable(folder for folder in folders if os.path.isdir(folder))
        set_threads(threads)

    def ready(self) -> None:
        """Do nothing."""

    def call(
        self, task: bytes, keys: Sequence[str], references: Mapping[str, Any] | None = None
    ) -> bytes | None:
        """Return the answer to a task; None if it needs references to shared objects."""
        if references is None and not Shared.holds(keys):
            return None
        _InStore.references = references or {}
        try:
            return answer(task)
        finally:
            _InStore.references = {}


def _versions() -> tuple[str, str]:
    """Return this package's version and PyTorch's, which is not imported for it."""
    from lfgcl_env import __version__

    found = find_spec("torch")
    assert found is not None
    version = runpy.run_path(str(Path(str(found.origin)).with_name("version.py")))
    return __version__, version["__version__"]


def _reason(error: BaseException) -> str:
    """Return why an actor ended, of the many lines that Ray says."""
    if getattr(error, "actor_init_failed", False):
        return str(error).strip().splitlines()[-1]
    text = " ".join(str(error).split())
    if "OOM" in text and "memory usage" in text and "kill" in text and "threshold" in text:
        return "its machine has no memory left"
    found = re.search(r"The actor is dead because (.*?)\.(?: |$)", text)
    return found[1] if found else text[:200]
