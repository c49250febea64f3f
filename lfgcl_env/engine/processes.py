"""Worker processes that outlive their tasks, and are replaced when they die."""

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, TypeVar

from lfgcl_env.config import POSITIVE, Positive
from lfgcl_env.edge.schema import check_value, short
from lfgcl_env.edge.threads import set_threads
from lfgcl_env.engine.shared import remove_orphaned

TRIES = 2
"""Workers that a task may end before it is reported."""

_KILLED = -9

_PATIENCE = 5.0  # seconds that a worker has to end by itself

_Result = TypeVar("_Result")


class WorkerDied(RuntimeError):
    """A task ended every worker process that tried it, as one that runs out of memory does.

    Args:
        task: names it.
        code: the exit code of the last worker, negative for a signal.
        started: whether the last worker had begun to take tasks; the task is not to blame else.
    """

    def __init__(self, task: str, code: int | None, *, started: bool = True) -> None:
        super().__init__(task, code)
        self.task, self.code, self.started = task, code, started

    def __str__(self) -> str:
        if not self.started:
            return (
                f"worker processes end while they start (exit code {self.code}): they import the "
                'script that starts them, so that it needs `if __name__ == "__main__":` around '
                "what it does"
            )
        why = ", killed, perhaps for want of memory" if self.code == _KILLED else ""
        return f"{self.task} ended {TRIES} worker processes (exit code {self.code}{why})"


class Processes(ThreadPoolExecutor):
    """An executor whose tasks run in processes of this machine.

    Every worker has a thread here, which hands it a task, waits for the answer, and starts another
    worker where one dies; the queue, futures and the end are those of ``ThreadPoolExecutor``.
    Workers start when they are first needed. They are forked from a server that has imported this
    package, or spawned where there is none: a script needs ``if __name__ == "__main__":``, as for
    all of ``multiprocessing``. They end with this process, however that ends, and processes that
    they started, as a ``DataLoader`` does, end with them.

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
        self.workers: int = check_value(workers, Positive, "workers", POSITIVE)
        self._of_torch: int = check_value(threads, Positive, "threads", POSITIVE)
        super().__init__(self.workers, thread_name_prefix="lfgcl-engine")
        self._context = _context()
        self._mine = threading.local()  # the worker of a thread
        self._all: set[_Worker] = set()
        self._starting, self._ending = threading.Lock(), threading.Lock()
        self._interrupts = 0

    def submit(self, fn: Callable[..., _Result], /, *args: Any, **kwargs: Any) -> "Future[_Result]":
        """Call a function in a worker; it, its arguments and its result must be picklable.

        The future raises what the function raised, with the worker's traceback as a note, and
        WorkerDied if the task ended ``TRIES`` workers.
        """
        return super().submit(self._run, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers, after all tasks that are not cancelled; see ``Executor``."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        if wait:
            self._end_workers()
        else:  # somebody has to wait for the tasks
            threading.Thread(target=self.shutdown, name="lfgcl-engine-end", daemon=True).start()

    def interrupt(self) -> None:
        """Give up all tasks that are being done; others still begin, in workers that start anew."""
        with self._starting:
            self._interrupts += 1
            for worker in list(self._all):
                worker.process.terminate()

    def kill(self) -> None:
        """End the workers at once, and cancel all tasks."""
        super().shutdown(wait=False, cancel_futures=True)
        self.interrupt()
        self.shutdown()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Shut down, at once where the block was interrupted."""
        if kind is not None and not issubclass(kind, Exception):
            self.kill()
        self.shutdown()

    def _run(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Have this thread's worker call a function, and another one if it dies."""
        task = pickle.dumps((function, args, kwargs))
        ended: int | None = None
        interrupts = self._interrupts
        started = False
        for _ in range(TRIES):
            worker = self._worker(interrupts)
            try:
                started = False
                worker.wait_ready()
                started = True
                worker.connection.send_bytes(task)
                answer = worker.connection.recv_bytes()
            except (EOFError, OSError):
                ended = self._discard(worker)
                continue
            done, result = pickle.loads(answer)
            if not done:
                raise result
            return result
        raise WorkerDied(f"{_name(function)}{short(args)}", ended, started=started)

    def _worker(self, interrupts: int) -> "_Worker":
        """Return this thread's worker for a task that began after so many interrupts."""
        worker: _Worker | None = getattr(self._mine, "worker", None)
        if worker is None or not worker.process.is_alive():
            if worker is not None:
                self._discard(worker)
            with self._starting:
                if interrupts != self._interrupts:
                    raise CancelledError
                worker = _Worker(self._context, self._of_torch)
                self._all.add(worker)
            self._mine.worker = worker
        return worker

    def _end_workers(self) -> None:
        with self._ending:
            workers = list(self._all)
            for worker in workers:  # all begin to end before one of them is waited for
                worker.connection.close()
            for worker in workers:
                self._discard(worker)

    def _discard(self, worker: "_Worker") -> int | None:
        """End a worker and what it started; return its exit code."""
        worker.connection.close()  # it ends when it reads this
        worker.process.join(_PATIENCE)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.end_children()
        self._all.discard(worker)
        if getattr(self._mine, "worker", None) is worker:
            self._mine.worker = None
        return worker.process.exitcode


class _Worker:
    """A process, and the connection over which it is given tasks and answers."""

    def __init__(self, context: Any, threads: int) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, threads), daemon=True)
        self._ready = False
        try:
            with _interrupts_blocked():
                self.process.start()
        except (EOFError, OSError) as error:  # the server that forks them ended
            raise WorkerDied("", None, started=False) from error
        finally:
            theirs.close()  # so that the connection ends with the process

    def wait_ready(self) -> None:
        """Wait until the process takes tasks.

        Raises:
            EOFError: if it ended before.
        """
        if not self._ready:
            self.connection.recv_bytes()
            self._ready = True

    def end_children(self) -> None:
        """Kill the processes that it started and left behind; they are in its group."""
        if self._ready and hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)


def _context() -> Any:
    """Return how processes start: never by a fork of this one, whose threads would be missing."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "lfgcl_env"])
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
        answer = _answer(task)
        try:
            connection.send_bytes(answer)
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


def _answer(task: bytes) -> bytes:
    """Return, pickled, whether a function returned, and its result or exception."""
    try:
        function, args, kwargs = pickle.loads(task)
        return pickle.dumps((True, function(*args, **kwargs)))
    except BaseException as error:
        error.add_note(f"in a worker:\n{traceback.format_exc()}")
        try:
            answer = pickle.dumps((False, error))
            pickle.loads(answer)
        except Exception:  # somebody's own exception may not survive it
            return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
        return answer


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", type(function).__name__)
