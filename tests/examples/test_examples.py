"""The examples run as scripts, and are notebooks in the percent format."""

import base64
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NEEDS = {
    "look_inside": ("matplotlib",),
    "train_an_agent": ("cma", "matplotlib", "stable_baselines3"),
    "use_rl_zoo": ("rl_zoo3",),
    "use_rllib": ("ray", "tree"),
    "use_stable_baselines3": ("stable_baselines3",),
    "use_torchrl": ("torchrl",),
}


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_from_top_to_bottom(path, tmp_path):
    for module in NEEDS.get(path.stem, ()):
        pytest.importorskip(module)
    ended = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        env=os.environ | {"EVALUATIONS": "4", "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_notebook_that_begins_with_a_title(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# %% [markdown]\n# # ")
    assert text.count("# %%\n") >= 3


SMALL = """# %% [markdown]
# # A title
#
# Some text.

# %%
import matplotlib.pyplot as plt

print(1 + 1)
plt.plot([1, 2])

# %%
name = "quiet"
"""


@pytest.mark.slow
def test_the_site_offers_an_example_as_a_notebook_with_its_outputs(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    pages = importlib.import_module("make_pages")
    monkeypatch.setattr(pages, "MADE", tmp_path / "made")
    example = tmp_path / "small.py"
    example.write_text(SMALL, encoding="utf-8")
    assert "{download}`notebook <../notebooks/small.ipynb>`" in pages.example(example)
    notebook = json.loads((tmp_path / "made/notebooks/small.ipynb").read_text(encoding="utf-8"))
    text, code, quiet = notebook["cells"]
    assert (text["cell_type"], text["source"]) == ("markdown", "# A title\n\nSome text.")
    assert code["source"].startswith("import matplotlib")
    printed, drawn = code["outputs"]
    assert (printed["output_type"], printed["text"]) == ("stream", "2\n")
    assert base64.b64decode(drawn["data"]["image/png"]).startswith(b"\x89PNG")
    assert (quiet["source"], quiet["outputs"]) == ('name = "quiet"', [])
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["name"]) == (4, "python3")
