"""Write cells as a notebook of Jupyter."""

import base64
import json
from pathlib import Path
from typing import Any

Cell = dict[str, Any]


def text_cell(text: str) -> Cell:
    """Return a cell of Markdown."""
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def code_cell(code: str, printed: str, pictures: list[Path]) -> Cell:
    """Return a cell of code with what it printed and drew.

    Args:
        code: its lines.
        printed: to standard output.
        pictures: PNG files.
    """
    shown: list[Cell] = []
    if printed:
        shown.append({"output_type": "stream", "name": "stdout", "text": printed})
    for path in pictures:
        data = {"image/png": base64.b64encode(path.read_bytes()).decode()}
        shown.append({"output_type": "display_data", "metadata": {}, "data": data})
    run = {"execution_count": None, "outputs": shown}
    return {"cell_type": "code", "metadata": {}, "source": code, **run}


def write_notebook(path: Path, cells: list[Cell]) -> None:
    """Write a notebook in format 4.4.

    Args:
        path: of the file; its folder is made if it is missing.
        cells: in their order.
    """
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    whole = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
