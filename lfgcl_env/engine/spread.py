"""Spreading the scoring of strategies over the workers of an executor."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from lfgcl_env.config import Submits
from lfgcl_env.edge.schema import short
from lfgcl_env.edge.threads import leave_threads_of_parent
from lfgcl_env.engine.shared import Shared
from lfgcl_env.engine.worker_executor import WorkerDied

_Value = TypeVar("_Value")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def spread(
    executor: Submits,
    function: Callable[[_Value, _Item], _Result],
    shared: Shared[_Value],
    items: Sequence[_Item],
) -> Iterator[tuple[_Item, _Result]]:
    """Yield every item with its result, in the order of items.

    Where one fails, those that have not begun are cancelled, the results of all that were begun are
    still yielded, and then the first failure is raised: nothing that was computed is lost. Where
    Ctrl-C interrupts it, or the loop over this is left, all others are cancelled, and given up if
    the executor can; after Ctrl-C those that are done are still yielded.

    Args:
        executor: of ``concurrent.futures``, or what has its ``submit``.
        function: a module's function or a class's method, of the shared object and an item.
        shared: what every worker loads once.
        items: picklable.

    Raises:
        WorkerDied: if an item ended several workers; the message names the item.
        CancelledError: if somebody else cancelled one.
    """
    futures: list[Any] = []
    failure: BaseException | None = None
    try:
        for item in items:
            futures.append(executor.submit(_call, function, shared, item))
        for item, future in zip(items, futures, strict=True):
            if failure is not None and not isinstance(failure, Exception) and not _is_done(future):
                continue
            try:
                result = future.result()
            except Exception as error:
                if isinstance(error, CancelledError) and failure is not None:
                    continue
                if isinstance(error, WorkerDied):
                    error.task = f"scoring {short(item)}"
                failure = failure or error
                _cancel(futures)
                continue
            except BaseException as error:  # Ctrl-C while it waited
                failure = error
                _give_up(executor, futures)
                continue
            yield item, result
    except BaseException:  # Ctrl-C elsewhere, the loop over this was left, or nothing more is taken
        _give_up(executor, futures)
        raise
    if failure is not None:
        raise failure


def _call(function: Callable[[Any, Any], Any], shared: Shared[Any], item: Any) -> Any:
    """Call a function of the shared object; runs in a worker."""
    leave_threads_of_parent()  # a user's own pool may have forked it
    return function(shared.get(), item)


def _is_done(future: Any) -> bool:
    return bool(getattr(future, "done", lambda: False)())


def _give_up(executor: Submits, futures: Sequence[Any]) -> None:
    _cancel(futures)
    getattr(executor, "interrupt", lambda: None)()


def _cancel(futures: Sequence[Any]) -> None:
    for future in futures:
        future.cancel()
