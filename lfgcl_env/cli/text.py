"""Words and tables that several commands print."""

from collections.abc import Sequence

from tabulate import tabulate

from lfgcl_env.networks import Baseline

METRIC_NAMES = {"macs": "MACs", "params": "params"}


def described(baseline: Baseline) -> str:
    """Return a network's name and where its weights are from."""
    return f"{baseline.title} with {baseline.weights} weights"


def columns(rows: Sequence[Sequence[str]], align: Sequence[str] = ()) -> list[str]:
    """Return lines of aligned cells.

    Args:
        rows: of cells.
        align: ``"left"`` or ``"right"`` for every column; by default all left.

    >>> columns([["a", "bc"], ["def", "g"]])
    ['a    bc', 'def  g']
    """
    text = tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=align or None)
    return [line.rstrip() for line in text.split("\n")]
