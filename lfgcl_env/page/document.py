"""The page as a whole: its sections, and what they look like."""

import os
from pathlib import Path

from lfgcl_env import __version__
from lfgcl_env.edge.files import as_path, check_links, write_text
from lfgcl_env.page.markup import Html, element
from lfgcl_env.page.run_facts import RunFacts, read_run
from lfgcl_env.page.sections import SECTIONS

PAGE = "report.html"

_MARKER = Html('<meta name="generator" content="lfgcl report">')
"""By which a page is known that another may replace."""

_BEGINNING = 300
_STYLE = Path(__file__).with_name("style.css")


def write_page(run: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> Path:
    """Write a run, finished or not, as one HTML file.

    Args:
        run: the run folder.
        out: the file to write; by default ``report.html`` in the folder.

    Returns:
        The file.

    Raises:
        FileNotFoundError: if no run was begun there.
        ValueError: if a file of the run is damaged, or the folder holds a link out of it.
        FileExistsError: if there is a file that is no such page.
        OSError: if the file cannot be written.
    """
    facts = read_run(run)
    path = facts.folder / PAGE if out is None else as_path(out, "the page")
    check_links(facts.folder)
    _check_replaceable(path)
    write_text(path, page(facts))
    return path


def _check_replaceable(path: Path) -> None:
    """Refuse a file that is none of these pages, which would be lost."""
    if not os.path.lexists(path):
        return
    if path.is_file() and not path.is_symlink():
        with path.open("rb") as file:
            if str(_MARKER).encode() in file.read(_BEGINNING):
                return
    raise FileExistsError(f"{str(path)!r} exists and is no report: give another file")


def page(run: RunFacts) -> str:
    """Return the page's content."""
    title = f"{run.folder.name or 'run'}: LFGCL-Env"
    head = element(
        "head",
        Html('<meta charset="utf-8">'),
        _MARKER,
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark">'),
        element("title", title),
        element("style", Html(_STYLE.read_text(encoding="utf-8"))),
    )
    made_by = element("footer", f"Made by lfgcl-env {__version__}.", class_="quiet")
    body = element("body", element("main", *(make(run) for make in SECTIONS), made_by))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"
