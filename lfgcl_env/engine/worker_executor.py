"""What the engines share: an executor whose workers are replaced when they die."""

import pickle
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol, TypeVar

from lfgcl_env.edge.bounds import POSITIVE, Positive
from lfgcl_env.edge.schema import check_value, short
from lfgcl_env.engine.occupation import Occupation

TRIES = 2
"""Workers that a task may end before it is reported."""

_Result = TypeVar("_Result")


class WorkerDied(RuntimeError):
    """A task ended every worker process that tried it, as one that runs out of memory does.

    Args:
        task: names it.
        why: how the last worker ended.
        started: whether the last worker had begun to take tasks; the task is not to blame else.
    """

    def __init__(self, task: str, why: str, *, started: bool = True) -> None:
        super().__init__(task, why)
        self.task, self.why, self.started = task, why, started

    def __str__(self) -> str:
        if not self.started:
            return f"worker processes end while they start: {self.why}"
        return f"{self.task} ended {TRIES} worker processes ({self.why})"


class Worker(Protocol):
    """What does one task at a time.

    Attributes:
        started: whether it has begun to take tasks.
        why: how it ended, once it was discarded.
    """

    started: bool
    why: str

    def call(self, task: Any) -> bytes:
        """Have it do a task, and return its answer.

        Raises:
            EOFError: or another OSError, if it ended.
        """

    def stop(self) -> None:
        """Have it end at once, whatever it does."""


class WorkerExecutor(ThreadPoolExecutor, ABC):
    """An executor whose tasks are done by workers outside of this process.

    A thread hands a task to a worker, waits for the answer, and hands it to another one if the
    worker ends; the queue, futures and the end are those of ``ThreadPoolExecutor``.

    Args:
        workers: most of them.
        threads: of PyTorch in each.

    Attributes:
        occupation: how long the workers were busy.

    Raises:
        ValueError: if one of them is no positive whole number.
    """

    def __init__(self, workers: int, threads: int) -> None:
        self.workers: int = check_value(workers, Positive, "workers", POSITIVE)
        self.threads: int = check_value(threads, Positive, "threads", POSITIVE)
        super().__init__(self.workers, thread_name_prefix="lfgcl-engine")
        self.occupation = Occupation()
        self._all: set[Any] = set()
        self._lock, self._ending = threading.Lock(), threading.Lock()
        self._interrupts, self._killed = 0, False

    def connect(self) -> None:
        """Reach what workers start from, where they are elsewhere; else the first task does."""

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
            with self._ending:
                self._end_workers()
        else:  # somebody has to wait for the tasks
            threading.Thread(target=self.shutdown, name="lfgcl-engine-end", daemon=True).start()

    def interrupt(self) -> None:
        """Give up all tasks that are being done; others still begin, in workers that start anew."""
        with self._lock:
            self._interrupts += 1
            workers = list(self._all)
        for worker in workers:
            worker.stop()

    def kill(self) -> None:
        """End the workers at once, and cancel all tasks."""
        self._killed = True
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
        """Have a worker call a function, and another one if it ends."""
        interrupts = self._interrupts
        if self._killed:  # between the queue and here
            raise CancelledError
        task = self._pack((function, args, kwargs))
        for _ in range(TRIES):
            worker = self._take(interrupts)
            try:
                with self.occupation.task():  # not while it waits for a place or a start
                    answer = worker.call(task)
            except (EOFError, OSError):
                self._discard(worker)
                continue
            except BaseException:
                self._discard(worker)
                raise
            self._give_back(worker)
            done, result = pickle.loads(answer)
            if not done:
                raise result
            return result
        raise WorkerDied(f"{_name(function)}{short(args)}", worker.why, started=worker.started)

    def _pack(self, task: tuple[Any, ...]) -> Any:
        """Return a task as workers take it."""
        return pickle.dumps(task)

    @abstractmethod
    def _take(self, interrupts: int) -> Worker:
        """Return a worker that this thread alone uses, for a task.

        Args:
            interrupts: how many there had been when the task began.

        Raises:
            CancelledError: if there was another one.
        """

    def _give_back(self, worker: Any) -> None:
        """Take back a worker that has done its task."""

    @abstractmethod
    def _discard(self, worker: Any) -> None:
        """End a worker, and note how it ended."""

    @abstractmethod
    def _end_workers(self) -> None:
        """End all workers, none of which has a task."""


def answer(task: bytes) -> bytes:
    """Return, pickled, whether a function returned, and its result or exception; for workers."""
    try:
        function, args, kwargs = pickle.loads(task)
        return pickle.dumps((True, function(*args, **kwargs)))
    except BaseException as error:
        error.add_note(f"in a worker:\n{traceback.format_exc()}")
        try:
            failure = pickle.dumps((False, error))
            pickle.loads(failure)
        except Exception:  # somebody's own exception may not survive it
            return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
        return failure


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", type(function).__name__)
