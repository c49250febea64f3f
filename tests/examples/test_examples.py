"""The examples run as scripts, and are notebooks in the percent format."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
NEEDS = {
    "look_inside": ("matplotlib",),
    "train_an_agent": ("cma", "matplotlib", "stable_baselines3"),
    "use_rl_zoo": ("rl_zoo3",),
    "use_rllib": ("ray", "tree"),
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
