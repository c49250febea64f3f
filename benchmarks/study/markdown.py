"""Tables in Markdown."""

from collections.abc import Sequence

from tabulate import DataRow, TableFormat, tabulate

_COMPACT = TableFormat(
    lineabove=None,
    linebelowheader=lambda widths, _: "|---" * len(widths) + "|",
    linebetweenrows=None,
    linebelow=None,
    headerrow=DataRow("| ", " | ", " |"),
    datarow=DataRow("| ", " | ", " |"),
    padding=0,
    with_header_hide=None,
)
"""GitHub's table without padding, so that one changed cell changes one line."""


def markdown_table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Return a table; cells are written as they are.

    >>> print(markdown_table(["method", "top-1"], [["uniform", "87.20"]]))
    | method | top-1 |
    |---|---|
    | uniform | 87.20 |
    """
    return tabulate(cells, heads, tablefmt=_COMPACT, disable_numparse=True, stralign=None)
