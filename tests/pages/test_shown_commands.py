"""Every command that a page or a script shows in passing is one that its parser accepts."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from lfgcl_env.cli.command_line import command_line
from lfgcl_env.cli.parser import commands_of, words_of

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
SCRIPTS = sorted(ROOT.glob("benchmarks/*.py"))

INLINE = re.compile(r"`(lfgcl [^`]+)`")
STUDY = re.compile(
    r"`(?:python )?(benchmarks/\w+\.py [^`]+)`|^ *python (benchmarks/\w+\.py.*)$", re.M
)


def shown(pattern, pages):
    """Return what pages show, without line ends, each once with the page's name."""
    found = {}
    for page in pages:
        for groups in pattern.findall(page.read_text(encoding="utf-8").replace("\\\n", " ")):
            text = groups if isinstance(groups, str) else "".join(groups)
            found.setdefault(" ".join(text.split()), page.name)
    return [pytest.param(text, id=f"{name}: {text}") for text, name in found.items()]


def lenient():
    """The command's parser, for which a name of a command is enough."""
    parser = command_line()
    for command in commands_of(parser).values():
        for action in command._actions:
            action.required = False
            if not action.option_strings and action.nargs is None:
                action.nargs = "?"
    return parser


@pytest.mark.parametrize("text", shown(INLINE, PAGES))
def test_a_command_in_running_text_is_one_of_ours(text):
    words = words_of(text.replace("COMMAND", "prune"))
    words = ["1" if word == "N" else word for word in words if word != "..."]
    if words == ["--print-completion"]:
        words.append("bash")
    if {"--version", "--help", "--print-completion"} & {*words}:
        with pytest.raises(SystemExit, match=r"^(0|None)$"):
            lenient().parse_args(words)
    else:
        assert callable(lenient().parse_args(words).command)


@pytest.mark.parametrize("text", command_line().examples)
def test_the_examples_of_the_whole_command_are_accepted(text):
    assert callable(command_line().parse_args(words_of(text)).command)


class Accepted(Exception):
    """Raised once a script has read its arguments."""


@pytest.fixture
def parsing_alone(monkeypatch):
    """Scripts end when they have read their arguments."""
    usual = argparse.ArgumentParser.parse_args

    def parse_args(parser, words=None, namespace=None):
        usual(parser, words, namespace)
        raise Accepted

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)


@pytest.mark.parametrize("text", shown(STUDY, [*PAGES, *SCRIPTS]))
def test_a_benchmark_accepts_what_is_shown(text, parsing_alone):
    file, *words = shlex.split(text, comments=True)
    with pytest.raises(Accepted):
        importlib.import_module(Path(file).stem).main(words)


def test_the_commands_in_running_text_are_found():
    texts = {param.values[0] for param in shown(INLINE, [ROOT / "README.md"])}
    assert {"lfgcl report runs/r56", "lfgcl prune --resume --out runs/r56"} <= texts
    files = {param.values[0].split()[0] for param in shown(STUDY, SCRIPTS)}
    assert len(files) > 20
