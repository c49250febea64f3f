"""Worker processes that outlive their tasks, and are replaced when they die."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from lfgcl_env.edge.threads import set_threads
from lfgcl_env.engine.shared import remove_orphaned
from lfgcl_env.engine.worker_executor import WorkerDied, WorkerExecutor, answer

_KILLED = -9

_PATIENCE = 5.0  # seconds that a worker has to end by itself


class Processes(WorkerExecutor):
    """An executor whose tasks run in processes of this machine.

    Every worker has a thread here, which hands it a task, waits for the answer, and starts another
    worker where one dies. Workers start when they are first needed. They are forked from a server
    that has imported what scoring needs, or spawned where there is none: a script needs
    ``if __name__ == "__main__":``, as for all of ``multiprocessing``. They end with this process,
    however that ends, and processes that they started, as a ``DataLoader`` does, end with them.

    Args:
        workers: most processes.
        threads: of PyTorch in each of them. On a machine whose cores all have a worker, more only
            disturb.

    Raises:
        ValueError: if one of them is no positive whole number.

    >>> with Processes(2) as executor:
    ...     list(executor.map(abs, [-1, 2, -3]))
    [1, 2, 3]
    """

    def __init__(self, workers: int = 1, *, threads: int = 1) -> None:
        super().__init__(workers, threads)
        self._context = _context()
        self._mine = threading.local()  # the worker of a thread

    def _take(self, interrupts: int) -> "_Process":
        """Return this thread's worker for a task that began after so many interrupts."""
        worker: _Process | None = getattr(self._mine, "worker", None)
        if worker is None or not worker.process.is_alive():
            if worker is not None:
                self._discard(worker)
            with self._lock:
                if interrupts != self._interrupts:
                    raise CancelledError
                worker = _Process(self._context, self.threads)
                self._all.add(worker)
            self._mine.worker = worker
        return worker

    def _end_workers(self) -> None:
        workers = list(self._all)
        for worker in workers:  # all begin to end before one of them is waited for
            worker.connection.close()
        for worker in workers:
            self._discard(worker)

    def _discard(self, worker: "_Process") -> None:
        """End a worker and what it started."""
        worker.end()
        self._all.discard(worker)
        if getattr(self._mine, "worker", None) is worker:
            self._mine.worker = None


class _Process:
    """A process, and the connection over which it is given tasks and answers."""

    def __init__(self, context: Any, threads: int) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, threads), daemon=True)
        self.started, self.why = False, ""
        try:
            with _interrupts_blocked():
                self.process.start()
        except (EOFError, OSError) as error:  # the server that forks them ended
            raise WorkerDied("", _unguarded(None), started=False) from error
        finally:
            theirs.close()  # so that the connection ends with the process

    def call(self, task: bytes) -> bytes:
        """Have it do a task, once it has started, and return its answer."""
        if not self.started:
            self.connection.recv_bytes()
            self.started = True
        self.connection.send_bytes(task)
        return self.connection.recv_bytes()

    def stop(self) -> None:
        """Have it end at once."""
        self.process.terminate()

    def end(self) -> None:
        """Wait until it has ended, or kill it; kill what it started and left in its group."""
        self.connection.close()  # it ends when it reads this
        self.process.join(_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        if self.started and hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.why = (_ended if self.started else _unguarded)(self.process.exitcode)


def _ended(code: int | None) -> str:
    why = ", killed, perhaps for want of memory" if code == _KILLED else ""
    return f"exit code {code}{why}"


def _unguarded(code: int | None) -> str:
    return (
        f"exit code {code}; they import the script that starts them, so that it needs "
        '`if __name__ == "__main__":` around what it does'
    )


def _context() -> Any:
    """Return how processes start: never by a fork of this one, whose threads would be missing."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "lfgcl_env.envs.reward"])
    return context


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Have processes that start here ignore Ctrl-C, the server that forks workers above all."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # a process of its own, whose start would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, threads: int) -> None:
    """Answer tasks until the connection ends; runs in a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    multiprocessing.current_process().daemon = False  # daemonic processes can start no others
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # what it starts ends with it
        os.register_at_fork(after_in_child=connection.close)  # so that it ends with this process
    set_threads(threads)
    connection.send_bytes(b"ready")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task = connection.recv_bytes()
        except (EOFError, OSError):
            return
        done = answer(task)
        try:
            connection.send_bytes(done)
        except OSError:
            return


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    remove_orphaned()
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
