"""What pages show runs: every block of Python, and every command, on small searches."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import given_to_pages
import made_cifar10
import pytest
import run_page
from torchvision.datasets import CIFAR10

from lfgcl_env.cli.command_line import command_line
from lfgcl_env.images import data_root
from lfgcl_env.images.datasets import read_dataset

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


_NEEDED = (
    "stable_baselines3", "cma", "onnxruntime", "ray", "distributed", "submitit", "wandb",
)  # fmt: skip


@pytest.fixture(scope="module")
def made_images(tmp_path_factory):
    """The folder of a small data set in CIFAR-10's files."""
    root = tmp_path_factory.mktemp("made")
    made_cifar10.write(root)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_from_top_to_bottom(page, made_images, tmp_path):
    for module in _NEEDED:
        pytest.importorskip(module)
    needs = given_to_pages.PAGES.get(page, given_to_pages.Given()).needs
    made = () if needs else ("--made-images", made_images)
    ended = subprocess.run(
        [sys.executable, run_page.__file__, page, *made],
        cwd=tmp_path,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "LFGCL_DATA": str(data_root()), "WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    assert int(ended.stdout.splitlines()[-1].split()[0]) > 0


def test_made_images_are_read_like_cifar10_and_refused_once_they_are_damaged(
    made_images, tmp_path, monkeypatch
):
    with pytest.raises(FileNotFoundError, match="damaged"):
        read_dataset("CIFAR10", train=False, root=made_images)
    for name, value in made_cifar10.checksums(made_images).items():
        monkeypatch.setattr(CIFAR10, name, value)
    training = read_dataset("CIFAR10", train=True, root=made_images)
    test = read_dataset("CIFAR10", train=False, root=made_images)
    assert training.pixels.shape == (10_000, 3, 32, 32)
    assert len(test.pixels) == len(test.labels) == 1_000
    assert set(test.labels.tolist()) == set(range(10))
    of_one_class = [test.pixels[test.labels == label].float().mean((0, 2, 3)) for label in (0, 1)]
    assert (of_one_class[0] - of_one_class[1]).abs().max() > 5
    damaged = shutil.copytree(made_images, tmp_path / "damaged")
    with (damaged / CIFAR10.base_folder / "test_batch").open("ab") as file:
        file.write(b"more")
    with pytest.raises(FileNotFoundError, match="damaged"):
        read_dataset("CIFAR10", train=False, root=damaged)


def test_what_is_given_to_pages_is_for_pages_that_are_there():
    assert set(given_to_pages.PAGES) <= {page.values[0] for page in PAGES}
