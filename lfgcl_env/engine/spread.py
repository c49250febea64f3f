"""Spreading the scoring of strategies over the workers of an executor."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor
from typing import Any, TypeVar

from lfgcl_env.edge.schema import short
from lfgcl_env.engine.processes import WorkerDied
from lfgcl_env.engine.shared import Shared

_Value = TypeVar("_Value")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def spread(
    executor: Executor,
    function: Callable[[_Value, _Item], _Result],
    shared: Shared[_Value],
    items: Sequence[_Item],
) -> Iterator[tuple[_Item, _Result]]:
    """Yield every item with its result, in the order of items.

    Where one fails, those that have not begun are cancelled, the results of all that were begun are
    still yielded, and then the first failure is raised: nothing that was computed is lost. Where
    the loop over this is left, by Ctrl-C for one, all others are cancelled, and given up if the
    executor can.

    Args:
        executor: of ``concurrent.futures``, or what has its ``submit``.
        function: a module's function or a class's method, of the shared object and an item.
        shared: what every worker loads once.
        items: picklable.

    Raises:
        WorkerDied: if an item ended several workers; the message names the item.
    """
    futures = [executor.submit(_call, function, shared, item) for item in items]
    failure: Exception | None = None
    try:
        for item, future in zip(items, futures, strict=True):
            try:
                result = future.result()
            except CancelledError:
                continue
            except Exception as error:
                if isinstance(error, WorkerDied):
                    error.task = f"scoring {short(item)}"
                failure = failure or error
                _cancel(futures)
                continue
            yield item, result
    except BaseException:  # Ctrl-C, or the loop over this was left
        _cancel(futures)
        getattr(executor, "interrupt", lambda: None)()
        raise
    if failure is not None:
        raise failure


def _call(function: Callable[[Any, Any], Any], shared: Shared[Any], item: Any) -> Any:
    """Call a function of the shared object; runs in a worker."""
    return function(shared.get(), item)


def _cancel(futures: Sequence[Any]) -> None:
    for future in futures:
        future.cancel()
