"""Runs what a page shows, in its order and in the current folder, on small searches.

    python tests/pages/run_page.py docs/own_network.md

With ``--made-images FOLDER`` a small made data set stands for CIFAR-10, see made_cifar10.py. Python
blocks share their names; one that begins with the name of a file is that file, and one that guards
what it does by its name runs as a script of its own. Shell blocks
run as far as they call ``lfgcl``; how the package is installed and tested, CI shows by doing it,
and studies in benchmarks/ have tests of their own.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import given_to_pages
import made_cifar10
from torchvision.datasets import CIFAR10

from lfgcl_env.cli import evaluate
from lfgcl_env.cli.main import main
from lfgcl_env.images import LabelledImages, load_test_set

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(python|py|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
GUARD = 'if __name__ == "__main__":'
FILE = re.compile(r"# (\w+\.py)\n")

SMALLER = {
    "ResNet56": "ResNet20",
    "resnet56": "resnet20",
    "resnet32": "resnet20",
    "weights published": "weights embedded",
}
"""What stands for larger networks and for weights that would be downloaded."""

QUICK = {
    "prune": "--evaluations 3 --shortlist 0 --num-images 16 --repair-images 32",
    "recover": "--epochs 1 --num-images 64",
    "measure": "--seconds 1 --batch 1",
    "synthesize": "--count 16 --steps 2",
}
"""Options that make a command take seconds."""


def few_of_the_test_set(*arguments: Any, **named: Any) -> LabelledImages:
    """Load the first of the test images, which are enough to see a table of accuracies."""
    whole = load_test_set(*arguments, **named)
    return LabelledImages(whole.images[:500], whole.labels[:500], whole.name)


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield the language and the text of every block of Python and of commands."""
    for language, block in BLOCK.findall(text):
        yield ("sh" if language == "sh" else "python"), block


def commands(block: str) -> Iterator[list[str]]:
    """Yield the words of every line of a shell block that calls the command, without its name."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "lfgcl" and "--print-completion" not in words:
            yield words[1:]


def smaller(text: str, replaced: dict[str, str]) -> str:
    """Replace what takes long, or stands for what a reader has."""
    for shown, run in (replaced | SMALLER).items():
        text = text.replace(shown, run)
    return text


def run(page: str) -> int:
    """Run a page; return how many blocks and commands ran.

    Raises:
        KeyError: if a replacement is for text that the page does not show.
        RuntimeError: if a command failed.
    """
    text = (ROOT / page).read_text(encoding="utf-8")
    if "lfgcl validate" not in text:  # which measures what an entry claims
        evaluate.load_test_set = few_of_the_test_set
    given = given_to_pages.PAGES.get(page, given_to_pages.Given())
    for shown in given.replaced:
        if shown not in text:
            raise KeyError(shown)
    names = given.prepare() | {"__name__": "__main__"}
    ran = 0
    for language, block in blocks(text):
        if language == "python":
            if named := FILE.match(block):
                Path(named[1]).write_text(block, encoding="utf-8")
            if GUARD in block:
                Path("script.py").write_text(smaller(block, given.replaced), encoding="utf-8")
                subprocess.run([sys.executable, "script.py"], check=True)
            else:
                exec(compile(smaller(block, given.replaced), page, "exec"), names)
            ran += 1
            continue
        for words in commands(smaller(block, given.replaced)):
            print("$ lfgcl", *words, flush=True)
            if code := main(words + QUICK.get(words[0], "").split()):
                raise RuntimeError(f"lfgcl {' '.join(words)} ended with {code}")
            ran += 1
    given.check(names)
    return ran


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page")
    parser.add_argument("--made-images", type=Path, help="the folder of the made data set")
    arguments = parser.parse_args()
    if arguments.made_images:
        os.environ["LFGCL_DATA"] = str(arguments.made_images)
        for name, value in made_cifar10.checksums(arguments.made_images).items():
            setattr(CIFAR10, name, value)
    sys.path.insert(0, "")  # a reader's own modules, as for a script in this folder
    print(run(arguments.page), "ran")
