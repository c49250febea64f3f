"""benchmarks/train_baseline.py: resuming, growing, exporting, on a few random images."""

import json
import signal
from importlib.metadata import version

import numpy as np
import pytest
import torch
import train_baseline
from train_baseline import main
from training.batches import TrainingImages, held_out, normalized
from training.growing import grown
from training.recipe import Recipe
from training.trainer import Training

from lfgcl_env.images.datasets import Split
from lfgcl_env.networks import PUBLISHED, build_network, load_baseline
from lfgcl_env.networks.state_dicts import state_sha256

BATCHES = 3  # of an epoch
CPU = torch.device("cpu")


def random_split(count, seed=0):
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return Split(torch.from_numpy(pixels), torch.from_numpy(draw.integers(0, 10, count)))


@pytest.fixture(autouse=True)
def data(monkeypatch):
    """Noise in place of CIFAR-10's training images; what a test changes is put back."""
    before, random = torch.get_num_threads(), torch.get_rng_state()
    monkeypatch.setattr(train_baseline, "read_dataset", lambda *_, **__: random_split(16))
    yield
    torch.set_num_threads(before)
    torch.set_rng_state(random)


def train(out, *options, network="resnet20", epochs=2):
    settings = ["--epochs", str(epochs), "--batch-size", "4", "--subset", str(4 * BATCHES)]
    precision = ["--precision", "fp32", "--device", "cpu", "--learning-rate", "0.05"]
    return main([network, *settings, *precision, "--out", str(out), *options])


def trained(out):
    """The hash of the weights, of their average, and the steps taken."""
    content = torch.load(out / "checkpoint.pt", weights_only=True)
    return state_sha256(content["network"]), state_sha256(content["average"]), content["done"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Two epochs without a break, made once."""
    out = tmp_path_factory.mktemp("training")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(train_baseline, "read_dataset", lambda *_, **__: random_split(16))
        assert train(out) == 0
    return out


@pytest.fixture
def at_step(monkeypatch):
    """Let something happen at the end of a step, once."""

    def after(number, happens):
        step = Training.step

        def stepped(self):
            loss = step(self)
            if self.done == number:
                monkeypatch.setattr(Training, "step", step)
                happens()
            return loss

        monkeypatch.setattr(Training, "step", stepped)

    return after


def killed():
    raise RuntimeError("killed")


@pytest.mark.parametrize("step", [1, BATCHES, BATCHES + 2], ids=["first", "epoch-end", "within"])
def test_training_stopped_by_ctrl_c_goes_on_to_the_very_same_weights(
    tmp_path, at_step, capsys, uninterrupted, step
):
    at_step(step, lambda: signal.raise_signal(signal.SIGINT))
    assert train(tmp_path) == 130
    assert f"stopped after {step} of {2 * BATCHES} steps" in capsys.readouterr().err
    assert trained(tmp_path)[2] == step
    torch.manual_seed(99)  # another process has another random state
    assert train(tmp_path) == 0
    assert trained(tmp_path) == trained(uninterrupted)


def test_training_that_was_killed_goes_on_from_the_last_epoch(tmp_path, at_step, uninterrupted):
    at_step(BATCHES + 2, killed)
    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path)
    assert trained(tmp_path)[2] == BATCHES
    assert train(tmp_path) == 0
    assert trained(tmp_path) == trained(uninterrupted)


def test_checkpoints_are_written_within_an_epoch_too(tmp_path, at_step):
    at_step(2, killed)
    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path, "--minutes", "0")
    assert trained(tmp_path)[2] == 1


def test_dropout_goes_on_where_it_stopped(tmp_path, at_step):
    options = {"network": "mobilenet_v2", "epochs": 1}
    assert train(tmp_path / "through", **options) == 0
    at_step(2, lambda: signal.raise_signal(signal.SIGINT))
    assert train(tmp_path / "stopped", **options) == 130
    torch.manual_seed(99)
    assert train(tmp_path / "stopped", **options) == 0
    assert trained(tmp_path / "stopped") == trained(tmp_path / "through")


def test_a_checkpoint_of_another_recipe_is_refused_with_the_difference(uninterrupted):
    with pytest.raises(ValueError, match=r"made with seed=0, not 1: give the same options"):
        train(uninterrupted, "--seed", "1")


def test_another_seed_and_another_epoch_see_other_images_in_the_same_number():
    images = TrainingImages(random_split(16), 4, 0, CPU)
    again = TrainingImages(random_split(16), 4, 0, CPU)
    other = TrainingImages(random_split(16), 4, 1, CPU)
    later = images.batch(1, 0)[0]
    first = images.batch(0, 0)[0]
    assert len(images) == 4
    assert torch.equal(again.batch(0, 0)[0], first)
    assert not torch.equal(other.batch(0, 0)[0], first)
    assert not torch.equal(later, first)


def test_crops_are_windows_of_the_reflected_image_or_its_mirror():
    split = random_split(4)
    images = TrainingImages(split, 4, 3, CPU)
    sides = ((0, 0), (0, 0), (4, 4), (4, 4))
    padded = torch.from_numpy(np.pad(split.pixels.numpy(), sides, mode="reflect"))
    windows = padded.unfold(2, 32, 1).unfold(3, 32, 1).flatten(2, 3)  # (4, 3, 81, 32, 32)
    seen, mirrored = set(), 0
    for epoch in range(4):
        for crop, label in zip(*images.batch(epoch, 0), strict=True):
            straight = (windows == crop[None, :, None]).all((1, 3, 4)).nonzero()
            flipped = (windows == crop.flip(2)[None, :, None]).all((1, 3, 4)).nonzero()
            assert len(straight) + len(flipped) == 1
            image, window = (straight if len(straight) else flipped)[0].tolist()
            assert label == split.labels[image]
            mirrored += len(flipped)
            seen.add(window)
    assert 0 < mirrored < 16
    assert len(seen) > 8


def test_every_image_is_seen_once_an_epoch():
    split = Split(random_split(8).pixels, torch.arange(8))
    images = TrainingImages(split, 4, 0, CPU)
    labels = torch.cat([images.batch(0, position)[1] for position in range(2)])
    assert sorted(labels.tolist()) == list(range(8))


def test_held_out_images_are_not_trained_on():
    split = Split(random_split(16).pixels, torch.arange(16))
    rest, watched = held_out(split, 4, None, seed=0)
    assert sorted([*rest.labels.tolist(), *watched.labels.tolist()]) == list(range(16))
    assert len(watched.labels) == 4
    assert len(held_out(split, 4, 5, seed=0)[0].labels) == 5
    with pytest.raises(ValueError, match="more than the 16 training images"):
        held_out(split, 4, 13, seed=0)


def test_inputs_are_those_of_the_package():
    normalization = PUBLISHED["resnet20"].normalization
    pixels = random_split(2).pixels
    mean, std = (torch.tensor(v)[:, None, None] for v in (normalization.mean, normalization.std))
    expected = normalization.apply(pixels.float() / 255)
    torch.testing.assert_close(normalized(pixels, mean, std), expected, rtol=0, atol=1e-5)


def test_the_learning_rate_rises_and_falls_to_nothing():
    one_cycle, cosine = Recipe("resnet20"), Recipe("resnet20", schedule="cosine")
    assert one_cycle.rate(0.2) == pytest.approx(0.2)
    assert one_cycle.rate(0.1) == pytest.approx(0.1)
    assert one_cycle.rate(0.6) == pytest.approx(0.1)
    assert cosine.rate(0) == pytest.approx(0.2)
    assert one_cycle.rate(1) == pytest.approx(0) == cosine.rate(1)


def test_a_grown_network_computes_what_the_shallower_one_does_and_learns():
    torch.manual_seed(0)
    shallow, deep = build_network("resnet20").eval(), build_network("resnet32").eval()
    deep.load_state_dict(grown(shallow.state_dict(), "resnet32", 10))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(deep(images), shallow(images))
    recipe = Recipe("resnet32", batch_size=4, epochs=1, learning_rate=0.05)
    training = Training(recipe, random_split(4), CPU, grown(shallow.state_dict(), "resnet32", 10))
    training.step()
    assert training._network.layer1[4].bn2.weight.abs().max() > 0


def test_only_deeper_resnets_can_be_grown():
    deep = build_network("resnet32").state_dict()
    with pytest.raises(ValueError, match=r"vgg16_bn cannot be grown from these weights"):
        grown(deep, "vgg16_bn", 10)


def test_exported_weights_are_those_that_embedded_weights_are_read_as(tmp_path, monkeypatch):
    test = random_split(20, seed=1)
    monkeypatch.setattr("lfgcl_env.images.labelled.read_dataset", lambda *_, **__: test)
    weights = tmp_path / "weights"
    assert train(tmp_path / "run", "--export", str(weights), epochs=1) == 0
    monkeypatch.setattr("lfgcl_env.networks.embedded_weights.FOLDER", weights)
    baseline = load_baseline("resnet20", "embedded")
    card = json.loads((weights / "resnet20_cifar10.json").read_text())
    assert card["weights_sha256"] == state_sha256(baseline.network.state_dict())
    assert card["recipe"]["seed"] == 0
    assert card["provenance"]["versions"]["torch"] == version("torch")
    inputs = baseline.normalization.apply(test.pixels.float() / 255)
    with torch.no_grad():
        right = (baseline.network(inputs).argmax(1) == test.labels).float().mean()
    assert card["top1"] == pytest.approx(100 * right.item())
    content = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["average"]
    torch.testing.assert_close(
        baseline.network.state_dict()["conv1.weight"], content["conv1.weight"], rtol=1e-3, atol=1e-6
    )
    assert sorted(path.name for path in weights.iterdir()) == [
        "resnet20_cifar10.json", "resnet20_cifar10.safetensors",
    ]  # fmt: skip


def test_held_out_accuracy_is_printed_after_every_epoch(tmp_path, capsys):
    assert train(tmp_path, "--hold-out", "4") == 0
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert len(printed) == 2
    assert all("held out" in line for line in printed)


def test_a_loss_that_is_no_number_ends_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "training.trainer.F.cross_entropy", lambda logits, *_, **__: logits.sum() * np.nan
    )
    with pytest.raises(FloatingPointError, match="give a lower --learning-rate"):
        train(tmp_path)


@pytest.mark.data("resnet20")
def test_a_teacher_changes_the_weights(tmp_path):
    assert train(tmp_path / "taught", "--teacher", "resnet20", epochs=1) == 0
    assert train(tmp_path / "alone", epochs=1) == 0
    assert trained(tmp_path / "taught")[0] != trained(tmp_path / "alone")[0]
