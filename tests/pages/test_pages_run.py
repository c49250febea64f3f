"""What pages show runs: every block of Python, and every command, on small searches."""

import os
import subprocess
import sys
from pathlib import Path

import given_to_pages
import pytest
import run_page

from lfgcl_env.cli.command_line import command_line
from lfgcl_env.images import data_root

ROOT = Path(__file__).parents[2]
ELSEWHERE = ("docs/saved_networks.md",)  # run by tests of the files that it is about


def shows(page):
    blocks = run_page.blocks((ROOT / page).read_text(encoding="utf-8"))
    return any(kind == "python" or list(run_page.commands(block)) for kind, block in blocks)


FILES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
PAGES = [
    pytest.param(name, marks=pytest.mark.data(*needs) if needs else ())
    for name in (path.relative_to(ROOT).as_posix() for path in FILES)
    if shows(name) and name not in ELSEWHERE
    for needs in [given_to_pages.PAGES.get(name, given_to_pages.Given()).needs]
]


@pytest.mark.parametrize("page", FILES, ids=lambda page: page.name)
def test_the_command_accepts_what_a_page_shows(page):
    for kind, block in run_page.blocks(page.read_text(encoding="utf-8")):
        for words in run_page.commands(block) if kind == "sh" else ():
            words = words[: words.index(">")] if ">" in words else words
            assert callable(command_line().parse_args(words).command), words


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_from_top_to_bottom(page, tmp_path):
    for module in ("stable_baselines3", "cma", "onnxruntime", "ray", "distributed", "submitit"):
        pytest.importorskip(module)
    ended = subprocess.run(
        [sys.executable, run_page.__file__, page],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "LFGCL_DATA": str(data_root())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    assert int(ended.stdout.splitlines()[-1].split()[0]) > 0


def test_what_is_given_to_pages_is_for_pages_that_are_there():
    assert set(given_to_pages.PAGES) <= {page.values[0] for page in PAGES}
