"""Options are made from the declared arguments: each appears, and reads what it accepts."""

import re
import shlex

import pytest

from lfgcl_env.cli.command_line import command_line
from lfgcl_env.cli.main import main
from lfgcl_env.cli.options import as_typed
from lfgcl_env.cli.parser import commands_of
from lfgcl_env.config import GlobalConfig, LayerwiseConfig, options
from lfgcl_env.search.search_config import SearchConfig

COMMANDS = commands_of(command_line())


def parse(*texts):
    return vars(command_line().parse_args(["prune", "--out", "run", *texts]))


@pytest.mark.parametrize("kind", [GlobalConfig, LayerwiseConfig, SearchConfig])
def test_every_argument_has_an_option_with_its_help_and_default(kind, capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    page = " ".join(capsys.readouterr().out.split())
    for name, option in options(kind).items():
        assert (f"--{name.replace('_', '-')} " in page.replace("]", " ")) == option.command
        if option.command:
            said = option.command_help or as_typed(option.help, option)
            assert said.replace(" ", "") in page.replace(" ", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_speaks_of_nothing_that_cannot_be_typed(name, capsys):
    with pytest.raises(SystemExit):
        command_line().parse_args([name, "--help"])
    page = capsys.readouterr().out
    assert "None" not in page
    assert "{'" not in page
    assert not re.search(r"\b(tensor|array)s?\b", page)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_says_in_sentences_what_it_does(name):
    assert COMMANDS[name].description.endswith(".")


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ("init_from", "FOLDER"),
        ("data_root", "FOLDER"),
        ("latency_table", "PATH or CHECKSUM"),
        ("weights", "NAME or PATH"),
        ("images", "NAME or PATH or KEY=VALUE,..."),
        ("num_images", "N or all"),
        ("agent", "NAME"),
    ],
)
def test_usage_says_what_kind_of_text_an_option_takes(option, word):
    (action,) = (a for a in COMMANDS["prune"]._actions if a.dest == option)
    assert action.metavar == word


@pytest.mark.parametrize(
    ("option", "text", "accepted"),
    [
        ("num-images", "None", "from 1 to 1,000,000, or all, got 'None'"),
        ("num-images", "0", "from 1 to 1,000,000, or all, got '0'"),
        ("num-score-images", "None", "from 0 to 4,294,967,295, got 'None'"),
        ("repair-images", "some", "must be a whole number of at least 1, got 'some'"),
        ("input-shape", "None", "4 positive whole numbers, written C,H,W, got 'None'"),
        ("input-shape", "0", "4 positive whole numbers, got '0'"),
        ("ray-resources", "CPU=a", "as in CPU=1,GPU=0.25, got 'CPU=a'"),
        ("ray-resources", "{'a}", 'written KEY=VALUE,..., got "{\'a}"'),
        ("budget", "half", "such numbers, written X or LOW:HIGH, got 'half'"),
    ],
)
def test_a_refusal_says_what_can_be_typed(option, text, accepted, capsys):
    with pytest.raises(SystemExit):
        parse(f"--{option}", text)
    assert accepted in capsys.readouterr().err


def test_limits_are_read_as_their_help_shows_them(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    page = " ".join(capsys.readouterr().out.split())
    shown = dict(re.findall(r"--([\w-]+) [NX] \[PATTERN.{,300}?as in ('\S+' '\S+')", page))
    assert set(shown) == {"round-to", "min-channels", "max-prune-ratio"}
    for option, words in shown.items():
        read = parse(f"--{option}", *shlex.split(words))[option.replace("-", "_")]
        assert [pattern for pattern, _ in read] == ["layer1.*", "*"]


def test_only_what_is_given_is_parsed():
    assert set(parse()) == {"out", "resume", "trust", "wandb", "command", "writes"}


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("budget", "0.5", 0.5),
        ("budget", "0.3:0.8", (0.3, 0.8)),
        ("features", "layer1,layer2", ["layer1", "layer2"]),
        ("horizon", "3", 3),
        ("num_images", "all", None),
        ("num_images", "12", 12),
        ("network_arguments", '{"num_classes": 100}', {"num_classes": 100}),
        ("network_arguments", "num_classes=100,shortcut=B", {"num_classes": 100, "shortcut": "B"}),
        ("input_shape", "1,28,28", (1, 28, 28)),
        ("input_shape", "64", (3, 64, 64)),
        ("normalization", "0.5,0.4/0.2,0.3", [[0.5, 0.4], [0.2, 0.3]]),
        ("reward", "my_module:reward", "my_module:reward"),
        ("max_prune_ratio", "0.7", 0.7),
        ("max_prune_ratio", "*=0.7", [["*", 0.7]]),
        ("protect", "layer1", ["layer1"]),
        ("data_root", "somewhere", "somewhere"),
        ("init_from", "runs/other", "runs/other"),
    ],
)
def test_an_option_reads_what_its_argument_accepts(option, text, value):
    assert parse(f"--{option.replace('_', '-')}", text)[option] == value


def test_limits_and_protection_take_several_values_in_the_order_given():
    parsed = parse("--max-prune-ratio", "layer1.*=0.3", "*=0.9", "--protect", "conv1", "layer3.*")
    assert parsed["max_prune_ratio"] == [["layer1.*", 0.3], ["*", 0.9]]
    assert parsed["protect"] == ["conv1", "layer3.*"]
    assert parse("--min-channels", "a=b=4", "*=2")["min_channels"] == [["a=b", 4], ["*", 2]]


def test_flags_are_options_without_a_value():
    parsed = parse("--spend-budget", "--download")
    assert parsed["spend_budget"] is True
    assert parsed["download"] is True


def test_options_are_not_shortened(capsys):
    assert main(["inspect", "resnet20", "--weig", "random"]) == 2
    assert "--weig" in capsys.readouterr().err
