"""How Sphinx builds the site: `make docs`."""

import sys
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike
from sphinx.util.typing import stringify_annotation

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import make_pages  # noqa: E402

from lfgcl_env import __version__  # noqa: E402

project = "LFGCL-Env"
author = "The LFGCL-Env authors"
release = version = __version__
project_copyright = author

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_site"]

autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "exclude-members": "model_config",
}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

highlight_language = "text"
smartquotes_action = "De"  # dashes and ellipses; quotes are often code

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = f"LFGCL-Env {version}"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["site.css"]


def setup(app: Any) -> None:
    """Write the pages that are made from the package before they are read."""
    app.connect("builder-inited", lambda _: make_pages.write_all())
    app.connect("autodoc-process-docstring", link_page)
    app.connect("object-description-transform", name_array_like, priority=400)


def name_array_like(app: Any, *_: Any) -> None:
    """Write ``ArrayLike`` for the union that it is, before autodoc (at 500) shows types."""
    union = stringify_annotation(ArrayLike, "smart")
    for types in app.env.temp_data.get("annotations", {}).values():
        for name, text in types.items():
            types[name] = text.replace(union, "~numpy.typing.ArrayLike")


def link_page(_app: Any, _kind: str, name: str, *others: Any) -> None:
    """Replace an environment's docstring, which is a page in Markdown, by its title and a link."""
    lines: list[str] = others[-1]
    if "## Description" in lines:
        page = {"LFGCLEnv": "LFGCL-v0", "AMCEnv": "AMC-v0"}[name.rpartition(".")[2]]
        lines[1:] = ["", f"Its page is :doc:`/_made/environments/{page}`.", ""]
