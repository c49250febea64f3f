"""Weights and images that come with the package."""

import configparser
import fnmatch
import json
import socket
from pathlib import Path

import gymnasium as gym
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import lfgcl_env
from lfgcl_env.cli.main import main
from lfgcl_env.images import embedded_sheet, write_sheet
from lfgcl_env.images.calibration import load_calibration
from lfgcl_env.networks import Normalization, build_network, load_baseline
from lfgcl_env.networks.embedded_weights import embedded_names, load_embedded, read_card
from lfgcl_env.runs.run_folder import RunFolder

NORMALIZATION = Normalization((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
PACKAGE = Path(lfgcl_env.__file__).parent


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Empty folders instead of the package's, and no network."""
    for kind, name in (("networks", "weights"), ("images", "sheets")):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(f"lfgcl_env.{kind}.embedded_{name}.FOLDER", tmp_path / name)

    def unreachable(*_, **__):
        raise OSError("the network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", unreachable)
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    return tmp_path


@pytest.fixture
def resnet20(folders):
    """A ResNet-20 in half precision, with a card and six images."""
    network = build_network("resnet20").eval()
    state = {k: v.half() for k, v in network.state_dict().items() if v.is_floating_point()}
    save_file(state, folders / "weights" / "resnet20_cifar10.safetensors")
    card = {
        "arguments": {"num_classes": 10, "shortcut": "A"},
        "normalization": {"mean": NORMALIZATION.mean, "std": NORMALIZATION.std},
    }
    (folders / "weights" / "resnet20_cifar10.json").write_text(json.dumps(card))
    pixels = torch.arange(6 * 3 * 32 * 32).remainder(251).reshape(6, 3, 32, 32).to(torch.uint8)
    write_sheet(folders / "sheets" / "resnet20_cifar10.png", pixels, {"seed": 0})
    return state


def test_embedded_weights_are_read_as_float32_with_what_belongs_to_them(resnet20):
    baseline = load_baseline("resnet20", "embedded")
    assert (baseline.weights, baseline.name) == ("embedded", "resnet20")
    assert baseline.normalization == NORMALIZATION
    for name, value in baseline.network.state_dict().items():
        if value.is_floating_point():
            assert value.dtype == torch.float32
            assert torch.equal(value, resnet20[name].float())
    assert embedded_names() == ["resnet20"]
    assert load_embedded("resnet20").normalization == NORMALIZATION


def test_embedded_weights_are_rebuilt_from_name_and_arguments(resnet20):
    baseline = load_baseline("resnet20", "embedded")
    rebuilt = build_network(baseline.name, **baseline.arguments)
    rebuilt.load_state_dict(baseline.network.state_dict())


def test_arguments_that_the_weights_do_not_have_are_refused(resnet20):
    with pytest.raises(ValueError, match=r"unknown shortcut 'C'"):
        load_baseline("resnet20", "embedded", shortcut="C")
    with pytest.raises(ValueError, match=r"have num_classes=10, not 100: leave it out"):
        load_baseline("resnet20", "embedded", num_classes=100)


def test_a_normalization_that_is_given_wins(resnet20):
    given = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert load_baseline("resnet20", "embedded", normalization=given).normalization.trivial


@pytest.mark.parametrize("name", ["resnet56", "torchvision:resnet18", "networks_for_tests:plain"])
def test_weights_that_are_not_there_are_told_with_those_that_are(resnet20, name):
    with pytest.raises(
        ValueError, match=rf"no weights of {name} come with the package \(.* some: resnet20\)"
    ):
        load_baseline(name, "embedded")


def test_a_package_without_weights_says_none():
    with pytest.raises(ValueError, match=r"some: none\): give weights='published', 'random', or"):
        load_baseline("resnet20", "embedded")
    with pytest.raises(ValueError, match=r"for: none\): give images='synthetic'"):
        embedded_sheet("resnet20")


def test_a_missing_card_is_told(resnet20, folders):
    assert read_card("resnet20")["arguments"]["shortcut"] == "A"
    (folders / "weights" / "resnet20_cifar10.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no model card .* reinstall the package"):
        load_baseline("resnet20", "embedded")


def test_damaged_weights_are_told(resnet20, folders):
    path = folders / "weights" / "resnet20_cifar10.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged, or is no safetensors file"):
        load_baseline("resnet20", "embedded")


def test_embedded_images_are_those_of_the_network(resnet20):
    baseline = load_baseline("resnet20", "embedded")
    images = load_calibration(baseline, "embedded", 4, seed=0, root=None, download=False)
    assert images.shape == (4, 3, 32, 32)
    everything = load_calibration(baseline, "embedded", None, seed=0, root=None, download=False)
    assert len(everything) == 6
    assert not torch.equal(images, everything[:4])  # drawn with the seed


def test_images_that_are_not_there_are_told_with_those_that_are(resnet20):
    with pytest.raises(ValueError, match=r"no images for resnet56 .*for: resnet20\)"):
        embedded_sheet("resnet56")
    with pytest.raises(ValueError, match="no images for a network without a name"):
        embedded_sheet(None)


def test_embedded_weights_bring_their_images_unless_others_are_asked_for(resnet20):
    env = gym.make("LFGCL-ResNet20-v0", num_images=6).unwrapped
    assert (env.problem.baseline.weights, env.images, env.problem.images) == (
        "embedded", "embedded", 6,
    )  # fmt: skip
    assert gym.make("LFGCL-ResNet20-v0", images="random", num_images=4).unwrapped.images == "random"
    with pytest.raises(FileNotFoundError, match="CIFAR10 is not in"):
        gym.make("LFGCL-ResNet20-v0", weights="random", data_root="nowhere")


def test_the_layerwise_environment_takes_its_labels_where_there_are_some(resnet20):
    env = gym.make("AMC-ResNet20-v0", reward="similarity", num_images=4).unwrapped
    assert (env.problem.baseline.weights, env.images) == ("embedded", "embedded")
    with pytest.raises(FileNotFoundError, match="CIFAR10 is not in"):
        gym.make("AMC-ResNet20-v0", data_root="nowhere")


def test_images_for_the_repair_are_others_or_all_that_there_are(resnet20):
    env = gym.make("LFGCL-ResNet20-v0", num_images=4).unwrapped
    used, others = env._source._load(4), env.repair_images(2)
    assert torch.equal(others, env.other_images(2))
    assert not any(torch.equal(one, other) for one in used for other in others)
    assert env.other_images(3) is None
    everything = env.repair_images(3)
    assert torch.equal(everything, torch.cat([used, others]))  # not in the order of the source
    assert not torch.equal(everything, env._source._load(None))
    more = env.repair_images(4096)
    assert torch.equal(more[:6], everything)
    assert len(more) == 4 * 6
    made = gym.make("LFGCL-ResNet20-v0", images="random", num_images=4).unwrapped
    assert torch.equal(made.repair_images(4), made._source._load(4))


def test_scores_repairs_and_judges_see_images_of_their_own():
    pool = torch.randn(8000, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 5)
    )
    arguments = {"network": network.eval(), "input_shape": (3, 8, 8), "images": pool}
    env = gym.make("LFGCL-v0", num_images=16, num_score_images=32, **arguments).unwrapped
    parts = [
        torch.cat(env.problem.batches),
        torch.cat(env.problem.score_batches),
        env.repair_images(),
        env.judge_images(),
    ]
    assert [len(part) for part in parts] == [16, 32, 4096, 2048]
    together = torch.cat(parts).flatten(1)
    assert len(torch.unique(together, dim=0)) == len(together)
    most = torch.cat([env.repair_images(5000), env.judge_images()]).flatten(1)
    assert len(torch.unique(most, dim=0)) == len(most) == 7048
    everything = torch.cat([env.repair_images(7000)[:5952], env.judge_images()]).flatten(1)
    assert len(torch.unique(everything, dim=0)) == 8000
    few = gym.make(
        "LFGCL-v0", num_images=16, num_score_images=32, **arguments | {"images": pool[:20]}
    )
    scored = torch.cat(few.unwrapped.problem.score_batches)
    assert len(scored) == 32
    assert len(few.unwrapped.judge_images(50)) == 50
    assert len(few.unwrapped.judge_images()) == 4 * 20
    assert not torch.equal(few.unwrapped.judge_images(32), scored)


def test_images_of_other_weights_are_warned_about(resnet20):
    baseline = load_baseline("resnet20", "random")
    with pytest.warns(UserWarning, match="made from the embedded weights of resnet20, not"):
        load_calibration(baseline, "embedded", 4, seed=0, root=None, download=False)


def test_without_a_network_what_is_embedded_is_pruned(resnet20, tmp_path, capsys):
    options = ["--agent", "random", "--evaluations", "2", "--shortlist", "2"]
    options += ["--data-root", str(tmp_path), "--out", str(tmp_path / "run")]
    assert main(["prune", "LFGCL-ResNet20-v0", "--num-images", "6", *options]) == 0
    printed = capsys.readouterr()
    assert "not tested: CIFAR10 is not in" in printed.out
    assert "lfgcl evaluate" in printed.out
    recorded = RunFolder(tmp_path / "run").described()["arguments"]
    assert (recorded["weights"], recorded["images"]) == ("embedded", "embedded")
    assert main(["inspect", "LFGCL-ResNet20-v0"]) == 0
    assert "embedded" in capsys.readouterr().out


def test_without_a_network_a_layerwise_environment_is_pruned(resnet20, tmp_path, capsys):
    search = ["--evaluations", "2", "--num-images", "6", "--shortlist", "0"]
    search += ["--data-root", str(tmp_path), "--agent", "lfgcl_env.baselines.amc:make"]
    similar = ["--reward", "similarity", "--out", str(tmp_path / "run")]
    assert main(["prune", "AMC-ResNet20-v0", *search, *similar]) == 0
    assert RunFolder(tmp_path / "run").described()["arguments"]["reward"] == "similarity"
    capsys.readouterr()
    option = ["--spend-budget", "--out", str(tmp_path / "no")]
    assert main(["prune", "LFGCL-ResNet20-v0", *search, *option]) == 2
    assert "--spend-budget is for AMC- environments" in capsys.readouterr().err


def test_without_a_network_what_needs_one_says_so(resnet20, torch_home, tmp_path, capsys):
    search = ["--evaluations", "1", "--out", str(tmp_path / "run")]
    assert main(["prune", "LFGCL-ResNet32-v0", *search]) == 2
    error = capsys.readouterr().err
    assert "cannot download" in error
    assert "'embedded' for those in the package (resnet20)" in error
    search += ["--images", "CIFAR10", "--data-root", str(tmp_path)]
    assert main(["prune", "LFGCL-ResNet20-v0", *search]) == 2
    assert "download=True" in capsys.readouterr().err
    assert main(["prune", "LFGCL-ResNet20-v0", *search, "--download"]) == 2
    assert "cannot download CIFAR10" in capsys.readouterr().err


def test_what_is_embedded_is_installed_with_the_package():
    parser = configparser.ConfigParser()
    parser.read(PACKAGE.parent / "setup.cfg")
    patterns = parser["options.package_data"]["lfgcl_env"].split()
    for path in (
        "networks/weights/resnet56_cifar10.safetensors",
        "networks/weights/resnet56_cifar10.json",
        "images/sheets/resnet56_cifar10.png",
    ):
        assert any(fnmatch.fnmatch(path, pattern) for pattern in patterns)
