"""Items that the workers of an executor are at, while the driver may do something else."""

from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from lfgcl_env.edge.executors import Submits
from lfgcl_env.edge.schema import short
from lfgcl_env.edge.threads import leave_threads_of_parent
from lfgcl_env.engine.shared import Shared
from lfgcl_env.engine.worker_executor import WorkerDied

_Value = TypeVar("_Value")
_Item = TypeVar("_Item", bound=Hashable)
_Result = TypeVar("_Result")


class InFlight(Generic[_Value, _Item, _Result]):
    """Items that workers are at, and the results that come of them.

    One thread begins items and waits for them.

    Args:
        executor: of ``concurrent.futures``, or what has its ``submit``.
        function: a module's function or a class's method, of the shared object and an item.
        shared: what every worker loads once.
        arrived: called with an item and its result by the thread that waits, for this item or for
            another one.
        finished: called with an item and its result as soon as it is there, in a thread of the
            executor; before ``arrived``.
    """

    def __init__(
        self,
        executor: Submits,
        function: Callable[[_Value, _Item], _Result],
        shared: Shared[_Value],
        arrived: Callable[[_Item, _Result], None],
        finished: Callable[[_Item, _Result], None] | None = None,
    ) -> None:
        self._executor, self._function, self._shared = executor, function, shared
        self._arrived, self._finished = arrived, finished
        self._trouble: BaseException | None = None  # of what was called in another thread
        self._forget()

    def __contains__(self, item: _Item) -> bool:
        return item in self._futures

    def begin(self, items: Iterable[_Item]) -> None:
        """Have workers begin items, but for those that they are at.

        If the executor takes one of them no more, all are given up.
        """
        try:
            for item in items:
                if item not in self._futures:
                    future = self._executor.submit(_call, self._function, self._shared, item)
                    self._futures[item] = future
                    tell = getattr(future, "add_done_callback", None)
                    if tell is None:
                        self._untold.add(item)
                    else:
                        tell(partial(self._note, self._done, item))
        except BaseException:
            self.give_up()
            raise

    def wait(self, item: _Item) -> None:
        """Return once an item's result has arrived, or if no worker is at it.

        If it fails, items that have not begun are cancelled, and the results of all others still
        arrive: nothing that was computed is lost. Another item's failure is raised when that one is
        waited for. Ctrl-C gives up all of them.

        Raises:
            WorkerDied: if the item ended several workers; the message names it.
            CancelledError: if somebody else cancelled it.
            Exception: what the item's function or ``finished`` raised.
        """
        try:
            try:
                while item in self._futures:
                    told = item not in self._untold and item not in self._failed
                    done = self._done.get() if told else item
                    self._take(done, needed=done == item)
                if self._trouble is not None:
                    raise self._trouble
            except Exception:
                self._end()
                raise
        except BaseException:
            self.give_up()  # after a failure nothing is left
            raise

    def give_up(self, *, at_once: bool = True) -> None:
        """Cancel all items; what is done still arrives.

        Args:
            at_once: whether to end those that workers are at, if the executor can. It ends what it
                does for others as well.
        """
        if not self._futures:
            return
        for future in self._futures.values():
            future.cancel()
        if at_once:
            getattr(self._executor, "interrupt", lambda: None)()
        self._hand_on({item: f for item, f in self._futures.items() if _is_done(f)})
        self._forget()

    def _note(self, done: "SimpleQueue[_Item]", item: _Item, future: Any) -> None:
        """Hand on a result at once, and say that it is there; a thread of the executor calls it."""
        try:
            if done is self._done and not future.cancelled() and future.exception() is None:
                self._finish(item, future.result())
        except BaseException as error:
            self._trouble = error if self._trouble is None else self._trouble
        finally:
            done.put(item)

    def _finish(self, item: _Item, result: _Result) -> None:
        if self._finished is not None:
            self._finished(item, result)

    def _take(self, item: _Item, *, needed: bool) -> None:
        """Hand on an item's result; raise its failure if the item is needed."""
        try:
            result = self._futures[item].result()
        except Exception as error:
            if not needed:
                self._failed.add(item)
                return
            if isinstance(error, WorkerDied):
                error.task = f"scoring {short(item)}"
            raise
        if item in self._untold:
            self._finish(item, result)
        self._arrived(item, result)
        del self._futures[item]

    def _end(self) -> None:
        """Cancel what has not begun, and hand on the rest when it is done."""
        for future in self._futures.values():
            future.cancel()
        self._hand_on(self._futures)
        self._forget()

    def _hand_on(self, futures: dict[_Item, Any]) -> None:
        for item, future in futures.items():
            with suppress(Exception):  # of a failed or cancelled one
                result = future.result()
                if item in self._untold:
                    self._finish(item, result)
                self._arrived(item, result)

    def _forget(self) -> None:
        self._futures: dict[_Item, Any] = {}
        self._done: SimpleQueue[_Item] = SimpleQueue()
        self._untold: set[_Item] = set()  # of executors that do not tell what is done
        self._failed: set[_Item] = set()  # and not yet waited for
        self._trouble = None


def spread(
    executor: Submits,
    function: Callable[[_Value, _Item], _Result],
    shared: Shared[_Value],
    items: Iterable[_Item],
    arrived: Callable[[_Item, _Result], None],
) -> None:
    """Have an executor's workers do items, and wait for all of them.

    See :class:`InFlight` for the arguments, failures, and Ctrl-C.
    """
    items = list(items)
    flight = InFlight(executor, function, shared, arrived)
    flight.begin(items)
    for item in items:
        flight.wait(item)


def _call(function: Callable[[Any, Any], Any], shared: Shared[Any], item: Any) -> Any:
    """Call a function of the shared object; runs in a worker."""
    leave_threads_of_parent()  # a user's own pool may have forked it
    return function(shared.get(), item)


def _is_done(future: Any) -> bool:
    with suppress(Exception):  # submitit's debugging raises where one was cancelled
        return bool(getattr(future, "done", lambda: False)())
    return False
