"""Run an example cell by cell, as a notebook would, and keep what it prints and draws.

python docs/run_examples.py examples/look_inside.py docs/_made/outputs/look_inside
"""

import argparse
import contextlib
import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

RESULT = "outputs.json"

NEEDS = {"use_rl_zoo": {"rl_zoo3": "rl_zoo3"}, "use_rllib": {"tree": "ray[rllib]"}}
"""Modules of large packages, and the packages, without which an example's page has no outputs."""


def cells(text: str) -> list[tuple[bool, str]]:
    """Split a notebook in the percent format: whether a cell is code, and its lines."""
    found = []
    for cell in text.split("# %%")[1:]:
        first, _, body = cell.partition("\n")
        found.append(("[markdown]" not in first, body.strip()))
    return found


def missing(example: Path) -> list[str]:
    """Return the large packages that an example needs and that are not installed."""
    needs = NEEDS.get(example.stem, {})
    return [package for module, package in needs.items() if not importlib.util.find_spec(module)]


def outputs(example: Path, folder: Path) -> list[tuple[str, list[str]]]:
    """Return what every cell of code prints, and names of its pictures in a folder.

    An example that has not changed since it ran is not run anew.

    Raises:
        RuntimeError: if the example fails.
    """
    digest = hashlib.sha256(example.read_bytes()).hexdigest()
    path = folder / RESULT
    if not path.exists() or json.loads(path.read_text("utf-8"))["of"] != digest:
        ended = subprocess.run(
            [sys.executable, __file__, str(example), str(folder)],
            env=os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise RuntimeError(f"{example} failed:\n{ended.stderr}")
    return [(text, names) for text, names in json.loads(path.read_text("utf-8"))["cells"]]


def run(example: Path, folder: Path) -> None:
    """Run an example, and write its outputs into a folder."""
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    source = example.read_text(encoding="utf-8")
    names = {"__name__": "__main__"}
    found: list[tuple[str, list[str]]] = []
    for is_code, body in cells(source):
        if not is_code:
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(body, str(example), "exec"), names)
        pictures = []
        for number in pyplot.get_fignums():
            pictures.append(f"{len(found)}-{number}.png")
            pyplot.figure(number).savefig(folder / pictures[-1], dpi=150, bbox_inches="tight")
        pyplot.close("all")
        found.append((printed.getvalue(), pictures))
    digest = hashlib.sha256(source.encode()).hexdigest()
    text = json.dumps({"of": digest, "cells": found})
    (folder / RESULT).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("example", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    run(arguments.example, arguments.folder)
