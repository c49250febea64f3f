"""HTML in small pieces: whatever is not made here is text, and is escaped."""

from collections.abc import Iterable, Sequence
from html import escape


class Html(str):
    """Markup, which is not escaped again."""

    __slots__ = ()


def element(name: str, *children: str, **attributes: str | float | None) -> Html:
    """Return an element.

    Args:
        name: of the element.
        children: text, which is escaped, or markup.
        attributes: those that are None are left out; an underscore at the end of a name is dropped,
            others become hyphens.

    >>> element("a", "5 < 6", href='"x"')
    '<a href="&quot;x&quot;">5 &lt; 6</a>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>{join(children)}</{name}>")


def join(parts: Iterable[str]) -> Html:
    """Return text and markup in a row.

    >>> join(["<", element("b", "x")])
    '&lt;<b>x</b>'
    """
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts))


def section(title: str, *children: str) -> Html:
    """Return a part of the page with its heading."""
    return element("section", element("h2", title), *children)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> Html:
    """Return a table that scrolls by itself where it is wider than the page.

    Args:
        heads: of its columns.
        rows: of cells.
        numbers: the columns that hold numbers, from 0.
    """

    def line(kind: str, cells: Sequence[str]) -> Html:
        return element(
            "tr",
            *(
                element(kind, cell, class_="number" if place in numbers else None)
                for place, cell in enumerate(cells)
            ),
        )

    body = [line("td", row) for row in rows]
    filled = element("table", element("thead", line("th", heads)), element("tbody", *body))
    return element("div", filled, class_="scroll")
