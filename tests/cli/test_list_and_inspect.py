"""``lfgcl list``, ``lfgcl inspect`` and ``lfgcl --version``."""

import pytest

import lfgcl_env
from lfgcl_env.cli.main import main
from lfgcl_env.pruning.registries import CHOICES
from lfgcl_env.search.protocol import own_agents


def test_inspect_lists_groups_cost_and_what_is_left_alone(capsys):
    assert main(["inspect", "LFGCL-ResNet20-v0", "--weights", "random"]) == 0
    printed = capsys.readouterr().out
    assert "layer3.2.conv1  64" in printed
    assert "9 groups" in printed
    assert "MACs 40,551,040" in printed
    assert "an addition couples it" in printed
    options = ["--weights", "random", "--input-shape", "64", "--scope", "all"]
    assert main(["inspect", "torchvision:resnet18", *options]) == 0
    assert "(3, 64, 64)" in capsys.readouterr().out


def test_inspect_takes_arguments_of_the_builder(capsys):
    options = ["--weights", "random", "--network-arguments", "num_classes=100,shortcut=B"]
    assert main(["inspect", "resnet20", *options]) == 0
    assert "MACs 40,818,944" in capsys.readouterr().out


def test_list_shows_all_names_with_a_line_each(capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("LFGCL-ResNet56-v0", "ddpg", "vgg16_bn"))
    described = [line.split(maxsplit=1) for line in printed.splitlines()]
    described = {parts[0]: parts[1] for parts in described if len(parts) == 2}
    for choices in (*CHOICES.values(), own_agents()):
        assert all(len(described[name]) > 10 for name in choices)


def test_list_imports_nothing_of_a_folder_named_agents(tmp_path, monkeypatch, capsys):
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("raise SystemExit('ran')")
    (tmp_path / "lfgcl_env.py").write_text("raise SystemExit('ran')")
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 0


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["prune", "--help"]])
def test_version_and_help_are_printed(arguments, capsys):
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert lfgcl_env.__version__ in printed or "usage: lfgcl" in printed
