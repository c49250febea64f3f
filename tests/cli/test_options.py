"""Options are made from the declared arguments: each appears, and reads what it accepts."""

import pytest

from lfgcl_env.cli.command_line import command_line
from lfgcl_env.cli.main import main
from lfgcl_env.config import GlobalConfig, LayerwiseConfig, options
from lfgcl_env.search.search_config import SearchConfig


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
            assert option.help.replace(" ", "") in page.replace(" ", "")


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
