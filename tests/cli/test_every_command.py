"""What all commands have alike: examples, JSON, quiet, colours on terminals, completion."""

import io
import json
import subprocess
import sys
from contextlib import redirect_stdout
from typing import get_type_hints

import pytest
from command_for_tests import prune, said

from lfgcl_env import __version__
from lfgcl_env.cli.colour import paint
from lfgcl_env.cli.command_line import command_line
from lfgcl_env.cli.main import main
from lfgcl_env.cli.outcome import Outcome
from lfgcl_env.cli.parser import commands_of, words_of

COMMANDS = commands_of(command_line())
FLAGS = ("--verbose", "--quiet", "--json")


def parse(words):
    return vars(command_line().parse_args(words))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_examples_that_it_accepts(name, capsys):
    examples = COMMANDS[name].examples
    assert examples, f"give `lfgcl {name}` an example or two (examples=)"
    with pytest.raises(SystemExit):
        parse([name, "--help"])
    page = capsys.readouterr().out
    for example in examples:
        assert f"\n  {example}\n" in page
        program, verb, *_ = example.split()
        assert (program, verb) == ("lfgcl", name)
        assert callable(parse(words_of(example))["command"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_the_common_flags_before_and_after_its_name(name):
    words = words_of(COMMANDS[name].examples[0])
    for flag in FLAGS:
        plain = flag.strip("-")
        assert parse([flag, *words])[plain] is True
        assert parse([*words, flag])[plain] is True


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_returns_what_json_prints(name):
    command = COMMANDS[name].get_default("command")
    assert get_type_hints(command)["return"] == Outcome, f"`lfgcl {name}` must return an Outcome"


def printed_json(capsys):
    return json.loads(capsys.readouterr().out)


def test_json_is_all_that_standard_output_gets(run, test_set, tmp_path, capsys):
    assert main(["list", "--json"]) == 0
    listed = printed_json(capsys)
    assert "LFGCL-ResNet56-v0" in [one["id"] for one in listed["environments"]]
    assert "obs" in listed["options"]["criterion"]

    assert main(["--json", "inspect", "resnet20", "--weights", "random"]) == 0
    inspected = printed_json(capsys)
    assert inspected["macs"] == 40_551_040
    assert len(inspected["groups"]) == inspected["scopes"]["inner"]["groups"]

    assert main(["evaluate", str(run), "--data", "CIFAR10", "--json"]) == 0
    tested = printed_json(capsys)
    assert tested["images"] == 20
    assert [row["network"] for row in tested["networks"]] == ["baseline", "pruned"]

    assert main(["report", str(run), "--out", str(tmp_path / "page.html"), "--json"]) == 0
    assert printed_json(capsys)["file"] == str(tmp_path / "page.html")


def test_prune_prints_what_it_found_as_json(tmp_path, capsys):
    assert prune(tmp_path / "run", "--json") == 0
    found = printed_json(capsys)
    best = json.loads((tmp_path / "run" / "best.json").read_text())
    assert found["best"]["keep"] == best["keep"]
    assert found["groups"] == [group["name"] for group in best["groups"]]
    assert prune(tmp_path / "sweep", "--budget", "0.3:0.5", "--points", "2", "--json") == 0
    swept = printed_json(capsys)
    assert swept["best"] is None
    assert [point["budget"] for point in swept["sweep"]] == [0.3, 0.5]


def test_entries_that_do_not_hold_are_printed_as_json_too(tmp_path, capsys):
    board = tmp_path / "board.jsonl"
    board.write_text("no entry\n")
    assert main(["validate", str(board), "--json"]) == 2
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["entries"] == []
    assert "line 1" in found["notes"][0]
    assert "do not hold: line 1" in captured.err


def test_an_error_prints_no_json(tmp_path, capsys):
    assert main(["report", str(tmp_path / "nothing"), "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("lfgcl: error: ")


def test_a_quiet_search_says_its_result_alone(tmp_path, capsys):
    assert prune(tmp_path / "loud") == 0
    assert "evaluation" in capsys.readouterr().err
    assert prune(tmp_path / "quiet", "-q") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "3 strategies were scored" in captured.out


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_colours_appear_on_terminals_alone(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert paint("error", "red", Terminal()) == "\033[31merror\033[0m"
    assert paint("error", "red", io.StringIO()) == "error"
    assert paint("error", "red", None if sys.stdout.isatty() else sys.stdout) == "error"
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("error", "red", Terminal()) == "error"
    monkeypatch.setenv("NO_COLOR", "")
    monkeypatch.setenv("TERM", "dumb")
    assert paint("error", "red", Terminal()) == "error"


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lfgcl {__version__}\n"


@pytest.fixture(scope="module")
def completed(tmp_path_factory):
    """What bash offers for the last of some words."""
    pytest.importorskip("shtab")
    folder = tmp_path_factory.mktemp("completion")
    script = folder / "completion"
    with redirect_stdout(io.StringIO()) as printed:
        assert main(["--print-completion", "bash"]) == 0
    script.write_text(printed.getvalue())
    (folder / "photos").mkdir()

    def complete(words):
        count = len(words.split()) if not words.endswith(" ") else len(words.split()) + 1
        asked = f"COMP_WORDS=(lfgcl {words}); COMP_CWORD={count}; _shtab_lfgcl"
        ended = subprocess.run(
            ["bash", "-c", f"source {script}; {asked}; echo ${{COMPREPLY[@]}}"],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return ended.stdout.split()

    return complete


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("pru", {"prune"}),
        ("prune --evalu", {"--evaluations"}),
        ("prune --agent lf", {"lfgcl"}),
        ("prune --agent dd", {"ddpg"}),
        ("prune --repair s", {"sequential"}),
        ("prune --engine p", {"processes"}),
        ("prune LFGCL-ResNet20-F", {"LFGCL-ResNet20-Flat-v0"}),
        ("inspect AMC-VGG", {"AMC-VGG16-v0"}),
        ("evaluate --data CIFAR100", {"CIFAR100"}),
        ("prune --images ph", {"photos"}),
        ("recover --data-root ph", {"photos"}),
        ("report ph", {"photos"}),
    ],
)
def test_bash_completes_commands_options_names_and_files(words, offered, completed):
    assert {word.rstrip("/") for word in completed(words)} == offered


def test_what_is_completed_is_no_limit_of_what_is_accepted():
    assert parse(["prune", "my_module:build", "--agent", "my:agent", "--out", "run"])["agent"]


def test_completion_without_shtab_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--print-completion", "zsh"]) == 2
    assert "lfgcl-env[completion]" in said(capsys)
