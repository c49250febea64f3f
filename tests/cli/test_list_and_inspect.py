"""``lfgcl list``, ``lfgcl inspect`` and ``lfgcl --version``."""

import json
import re

import gymnasium as gym
import pytest
from torch import nn

import lfgcl_env
from lfgcl_env.cli.main import main
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import REPAIRS, PrunableNetwork
from lfgcl_env.pruning.registries import CHOICES
from lfgcl_env.search.protocol import own_agents


def test_inspect_lists_groups_cost_and_what_is_left_alone(capsys):
    assert main(["inspect", "LFGCL-ResNet20-v0", "--weights", "random"]) == 0
    printed = capsys.readouterr().out
    assert "layer3.2.conv1  64" in printed
    assert "9 groups" in printed
    assert "MACs 40,551,040" in printed
    assert "the network fails without its channels" in printed
    options = ["--weights", "random", "--input-shape", "64", "--scope", "all"]
    assert main(["inspect", "torchvision:resnet18", *options]) == 0
    assert "(3, 64, 64)" in capsys.readouterr().out


def test_inspect_takes_arguments_of_the_builder(capsys):
    options = ["--weights", "random", "--network-arguments", "num_classes=100,shortcut=B"]
    assert main(["inspect", "resnet20", *options]) == 0
    assert "MACs 40,818,944" in capsys.readouterr().out


def inspected(capsys, *options):
    """The lines printed for a random ResNet-20, split into cells."""
    assert main(["inspect", "resnet20", "--weights", "random", *options]) == 0
    return [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]


def test_inspect_says_what_each_group_can_save_and_the_lowest_budget_under_limits(capsys):
    limits = ["--min-channels", "layer1=4", "--max-prune-ratio", "layer3.*=0.5", "*=0.9"]
    lines = inspected(capsys, *limits, "--round-to", "2", "--protect", "layer2")
    rows = {line[0]: line for line in lines}
    base = load_baseline("resnet20", "random")
    network = PrunableNetwork(
        base, min_channels={"layer1": 4}, max_prune_ratio={"layer3.*": 0.5, "*": 0.9},
        round_to=2, protect="layer2",
    )  # fmt: skip
    alone = network.channels.copy()
    alone[0] = 4
    saved = 1 - network.cost(alone).macs / network.baseline_cost.macs
    assert rows["layer1.0.conv1"][1:4] == ["16", "4 or more, by 2", f"{saved:.1%}"]
    assert rows["layer3.2.conv1"][1:3] == ["64", "32 or more, by 2"]
    assert rows["layer2.0.conv1"][1:] == ["32", "protect='layer2' keeps it as it is"]
    lowest = [f"{network.projection(metric).lowest:.4f}" for metric in ("macs", "params")]
    assert rows["inner"] == ["inner", "6", *lowest]
    told = next(line[0] for line in lines if line[0].startswith("limits: "))
    assert "protect layer2, " in told
    assert "max_prune_ratio layer3.*=0.5 *=0.9" in told


def test_json_says_of_every_group_what_the_table_says(capsys):
    options = ["--min-channels", "4", "--round-to", "2", "--protect", "layer2"]
    rows = {line[0]: line for line in inspected(capsys, *options)}
    assert main(["inspect", "resnet20", "--weights", "random", *options, "--json"]) == 0
    groups = json.loads(capsys.readouterr().out)["groups"]
    base = load_baseline("resnet20", "random")
    network = PrunableNetwork(base, min_channels=4, round_to=2, protect="layer2")
    assert [one["name"] for one in groups] == [group.name for group in network.groups]
    for index, one in enumerate(groups):
        keeps, saves, layers = rows[one["name"]][2:5]
        assert keeps == f"{one['fewest']} or more, by {one['step']}"
        assert saves == f"{one['saves']['macs']:.1%}"
        assert layers == ", ".join(one["layers"])
        alone = network.channels.copy()
        alone[index] = one["fewest"]
        for metric, whole in vars(network.baseline_cost).items():
            left = getattr(network.cost(alone), metric) / whole
            assert one["saves"][metric] == pytest.approx(1 - left)


def test_inspect_shows_both_scopes_and_names_the_one_with_more_groups(capsys):
    wide = [*inspected(capsys, "--network-arguments", "shortcut=B")]
    rows = {line[0]: line for line in wide}
    assert rows["inner"][1] == "9"
    assert rows["all"][1] == "12"
    assert rows["all"][-1] == "--scope all prunes 3 more groups"
    assert float(rows["all"][2]) < float(rows["inner"][2])
    assert rows["conv1"][-1].startswith("an addition couples it (scope='all' prunes it")
    rows = {line[0]: line for line in inspected(capsys)}
    assert rows["conv1"][-1].startswith("the network fails without its channels")
    assert len(rows["all"]) == len(rows["inner"])  # its streams cannot be cut: no hint


def test_inspect_of_an_amc_id_has_amcs_bound(capsys):
    assert main(["inspect", "AMC-ResNet20-v0", "--weights", "random"]) == 0
    printed = capsys.readouterr().out
    assert "max_prune_ratio 0.8" in printed
    assert "  13 or more  " in printed


def test_inspect_says_which_repairs_work_and_why_others_do_not(capsys, tmp_path, monkeypatch):
    (tmp_path / "odd.py").write_text(
        "from torch import nn\n\n\n"
        "class Odd(nn.Sequential):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x if x.sum() > 0 else -x)\n\n\n"
        "def build():\n"
        "    pooled = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))\n"
        "    return Odd(nn.Conv2d(3, 8, 3), *pooled)\n"
    )
    monkeypatch.chdir(tmp_path)
    options = ["--weights", "random", "--input-shape", "16"]
    assert main(["inspect", "odd:build", *options]) == 0
    rows = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    repairs = {row[0]: row[1] for row in rows if len(row) == 2 and row[0] in REPAIRS}
    assert set(repairs) == set(REPAIRS)
    assert repairs["none"] == repairs["least_squares"] == "works"
    assert repairs["batchnorm"].startswith("does not work: repair 'batchnorm' needs BatchNorm")
    assert repairs["sequential"].startswith("does not work: sequential repair needs")


def test_list_shows_all_names_with_a_line_each(capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("LFGCL-ResNet56-v0", "ddpg", "vgg16_bn"))
    described = [line.split(maxsplit=1) for line in printed.splitlines()]
    described = {parts[0]: parts[1] for parts in described if len(parts) == 2}
    for choices in (*CHOICES.values(), own_agents()):
        assert all(len(described[name]) > 10 for name in choices)


def test_list_shows_every_id(capsys):
    assert main(["list", "--json"]) == 0
    listed = {one["id"] for one in json.loads(capsys.readouterr().out)["environments"]}
    ours = {n for n, spec in gym.registry.items() if "lfgcl_env." in str(spec.entry_point)}
    assert listed == ours


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


def build_grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=4), nn.Conv2d(8, 6, 1), nn.Flatten(),
        nn.Linear(6 * 32 * 32, 5),
    )  # fmt: skip


def test_inspect_says_which_channels_go_in_bundles(capsys):
    assert main(["inspect", f"{__name__}:build_grouped"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^0 +4 x 2 +1 or more +[0-9.]+% +0, 1, 2$", printed, re.MULTILINE)
    assert re.search(r"^2 +6 +1 or more +[0-9.]+% +2, 4$", printed, re.MULTILINE)
