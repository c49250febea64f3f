"""Images made from a network alone, kept in batches, and ``lfgcl synthesize``."""

import copy

import pytest
import torch
from networks_for_tests import awaken, flattening, plain
from torch import nn
from unusual_networks import segmenting

from lfgcl_env.cli.main import main
from lfgcl_env.images import load_images, read_sheet, synthetic_pixels, write_sheet
from lfgcl_env.images import synthetic_batches as batches
from lfgcl_env.images.calibration import load_calibration
from lfgcl_env.images.synthetic import Recipe, synthesize_batch
from lfgcl_env.images.synthetic_batches import batch_files, cache_folder, provenance
from lfgcl_env.networks import Normalization, load_baseline
from lfgcl_env.networks.state_dicts import state_sha256

SHAPE = (3, 8, 8)
QUICK = Recipe(steps=3, batch=4)
NORMALIZATION = Normalization((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


@pytest.fixture
def baseline():
    return load_baseline(awaken(plain()), input_shape=SHAPE, normalization=NORMALIZATION)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("LFGCL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def made(monkeypatch):
    """The numbers of the batches that were made rather than read."""
    numbers = []

    def counted(baseline, index, **arguments):
        numbers.append(index)
        return synthesize_batch(baseline, index, **arguments)

    monkeypatch.setattr(batches, "synthesize_batch", counted)
    return numbers


def first_statistics(baseline, pixels):
    """Mean and variance of the first BatchNorm's inputs, for each channel."""
    found = []
    norm = next(m for m in baseline.network.modules() if isinstance(m, nn.BatchNorm2d))
    hook = norm.register_forward_pre_hook(
        lambda _, inputs: found.extend(torch.var_mean(inputs[0], (0, 2, 3)))
    )
    with torch.no_grad():
        logits = baseline.network(baseline.normalization.apply(pixels.float() / 255))
    hook.remove()
    variance, mean = found
    deviation = (mean - norm.running_mean).square() / norm.running_var
    deviation += (variance / norm.running_var).sqrt().sub(1).square()
    return deviation.mean().item(), logits


def test_images_are_the_same_for_a_seed_and_others_for_another_and_in_every_batch(baseline):
    first = synthesize_batch(baseline, 0, seed=0, recipe=QUICK)
    assert first.shape == (4, *SHAPE)
    assert first.dtype == torch.uint8
    torch.manual_seed(99)  # nothing is drawn from the global state
    assert torch.equal(synthesize_batch(baseline, 0, seed=0, recipe=QUICK), first)
    assert not torch.equal(synthesize_batch(baseline, 0, seed=1, recipe=QUICK), first)
    assert not torch.equal(synthesize_batch(baseline, 1, seed=0, recipe=QUICK), first)


def test_images_take_on_the_statistics_and_the_classes_that_the_network_knows(baseline):
    start = synthesize_batch(baseline, 0, seed=0, recipe=Recipe(steps=1, batch=10, step_size=1e-9))
    end = synthesize_batch(baseline, 0, seed=0, recipe=Recipe(steps=150, batch=10))
    classes = torch.arange(10) % 5
    (before, guess), (after, answer) = (first_statistics(baseline, p) for p in (start, end))
    assert after < before / 4
    entropy = nn.functional.cross_entropy
    assert entropy(answer, classes) < entropy(guess, classes)


def test_neighbouring_pixels_are_alike_if_that_is_weighed_more(baseline):
    def roughness(variation):
        recipe = Recipe(steps=40, batch=4, variation=variation)
        pixels = synthesize_batch(baseline, 0, seed=0, recipe=recipe).float()
        return pixels.diff(dim=3).square().mean().item()

    assert roughness(10.0) < roughness(0.0) / 2


def test_the_start_is_as_smooth_as_natural_images_unless_white_noise_is_asked_for(baseline):
    def roughness(slope):
        recipe = Recipe(steps=1, batch=8, step_size=1e-9, slope=slope)
        pixels = synthesize_batch(baseline, 0, seed=0, recipe=recipe).float()
        return (pixels.diff(dim=3).square().mean() / pixels.var()).item()

    assert roughness(1.0) < 0.6 * roughness(0.0)


@pytest.mark.parametrize("shape", [(1, 6, 10), (3, 1, 1), (1, 1, 1)])
def test_images_need_not_be_square_or_large(shape):
    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(shape[0], 4, 1)
            self.norm = nn.BatchNorm2d(4)
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))

    pixels = synthesize_batch(load_baseline(Tiny(), input_shape=shape), 0, seed=0, recipe=QUICK)
    assert pixels.shape == (4, *shape)
    assert pixels.float().std() > 1


def test_the_baseline_is_left_as_it_was(baseline):
    before = state_sha256(baseline.network.state_dict())
    synthesize_batch(baseline, 0, seed=0, recipe=QUICK)
    assert state_sha256(baseline.network.state_dict()) == before
    assert all(parameter.requires_grad for parameter in baseline.network.parameters())
    assert all(parameter.grad is None for parameter in baseline.network.parameters())
    assert not any(module._forward_pre_hooks for module in baseline.network.modules())


def test_one_channel_and_an_unknown_normalization_will_do():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))
    baseline = load_baseline(awaken_grey(network), input_shape=(1, 6, 6))
    pixels = synthesize_batch(baseline, 0, seed=0, recipe=QUICK)
    assert pixels.shape == (4, 1, 6, 6)
    assert pixels.float().std() > 1


def awaken_grey(network):
    with torch.no_grad():
        network.train()(torch.rand(16, 1, 6, 6, generator=torch.Generator().manual_seed(0)))
    return network.eval()


@pytest.mark.parametrize("network", [flattening, lambda: forgetful(plain())], ids=["none", "off"])
def test_a_network_without_batchnorm_statistics_is_refused(network, cache):
    baseline = load_baseline(network(), input_shape=SHAPE)
    with pytest.raises(ValueError, match=r"has no BatchNorm layer with running .* a folder"):
        synthesize_batch(baseline, 0, seed=0)
    with pytest.raises(ValueError, match="has no BatchNorm layer with running"):
        synthetic_pixels(baseline, 4)
    assert not cache.exists()


def forgetful(network):
    """BatchNorm by the statistics of the batch alone."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = module.running_var = None
            module.track_running_stats = False
    return network


@pytest.mark.parametrize("count", [0, -1])
def test_a_count_that_is_not_positive_is_refused(baseline, cache, count):
    with pytest.raises(ValueError, match="number of images must be a whole number of at least 1"):
        synthetic_pixels(baseline, count, recipe=QUICK)


def test_batches_are_made_once_and_more_images_are_a_continuation(baseline, cache, made):
    few = synthetic_pixels(baseline, 6, recipe=QUICK)
    assert made == [0, 1]
    more = synthetic_pixels(baseline, 9, recipe=QUICK)
    assert made == [0, 1, 2]
    assert few.shape == (6, *SHAPE)
    assert torch.equal(more[:6], few)
    assert len(more.flatten(1).unique(dim=0)) == 9


def test_making_goes_on_after_an_interruption(baseline, tmp_path, made, monkeypatch):
    whole = synthetic_pixels(baseline, 8, tmp_path / "whole", recipe=QUICK)
    counted = batches.synthesize_batch

    def interrupted(baseline, index, **arguments):
        if index == 1:
            raise KeyboardInterrupt
        return counted(baseline, index, **arguments)

    made.clear()
    with monkeypatch.context() as patched:
        patched.setattr(batches, "synthesize_batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            synthetic_pixels(baseline, 8, tmp_path / "broken", recipe=QUICK)
    assert torch.equal(synthetic_pixels(baseline, 8, tmp_path / "broken", recipe=QUICK), whole)
    assert made == [0, 1]


def test_the_cache_is_keyed_by_weights_seed_and_recipe_but_not_by_the_weights_file(
    baseline, cache, made
):
    pixels = synthetic_pixels(baseline, 4, recipe=QUICK)
    other = copy.deepcopy(baseline)
    with torch.no_grad():
        other.network[0].weight[0, 0, 0, 0] += 0.1
    assert not torch.equal(synthetic_pixels(other, 4, recipe=QUICK), pixels)
    synthetic_pixels(baseline, 4, seed=1, recipe=QUICK)
    synthetic_pixels(baseline, 4, recipe=Recipe(steps=2, batch=4))
    assert made == [0] * 4
    moved = copy.deepcopy(baseline)
    object.__setattr__(moved, "weights", "elsewhere.safetensors")
    assert torch.equal(synthetic_pixels(moved, 4, recipe=QUICK), pixels)
    assert torch.equal(synthetic_pixels(baseline, 4, recipe=QUICK), pixels)
    assert made == [0] * 4
    assert len(list((cache / "synthetic").iterdir())) == 4


def test_damaged_and_foreign_batches_are_made_again(baseline, tmp_path, made):
    pixels = synthetic_pixels(baseline, 12, tmp_path, recipe=QUICK)
    paths = batch_files(tmp_path, 12, QUICK)
    paths[0].write_bytes(paths[0].read_bytes()[:60])
    paths[1].write_bytes(paths[2].read_bytes())  # whole, but of another number
    made.clear()
    assert torch.equal(synthetic_pixels(baseline, 12, tmp_path, recipe=QUICK), pixels)
    assert made == [0, 1]


def test_a_cache_that_cannot_be_written_is_warned_of_and_the_images_are_there(
    baseline, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LFGCL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match=r"cannot be cached in .*: set LFGCL_CACHE to a"):
        pixels = synthetic_pixels(baseline, 4, recipe=QUICK)
    assert torch.equal(pixels, synthesize_batch(baseline, 0, seed=0, recipe=QUICK))


def test_the_cache_is_below_the_home_folder_where_nothing_is_said(baseline, monkeypatch, tmp_path):
    monkeypatch.delenv("LFGCL_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = cache_folder(provenance(baseline, 0, QUICK))
    assert folder.parent == tmp_path / ".cache" / "lfgcl" / "synthetic"


def test_a_kept_batch_says_where_it_comes_from(baseline, tmp_path):
    synthetic_pixels(baseline, 4, tmp_path, seed=3, recipe=QUICK)
    _, texts = read_sheet(tmp_path / "00000.png")
    assert texts["weights_sha256"] == state_sha256(baseline.network.state_dict())
    assert texts["seed"] == "3"
    assert texts["recipe_steps"] == "3"
    assert texts["network"] == "Sequential"
    assert texts["software"].startswith("lfgcl-env ")


def test_environments_take_synthetic_images(baseline, cache, monkeypatch):
    monkeypatch.setattr(batches, "RECIPE", QUICK)
    inputs = load_calibration(baseline, "synthetic", 6, seed=0, root=None, download=False)
    pixels = synthetic_pixels(baseline, 6)
    torch.testing.assert_close(inputs, NORMALIZATION.apply(pixels.float() / 255))


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Weights of a small network for the command, and batches of four images."""
    network = load_baseline("networks_for_tests:plain", input_shape=SHAPE).network
    torch.save(awaken(network).state_dict(), tmp_path / "plain.pt")
    for module in ("lfgcl_env.images.synthetic_batches", "lfgcl_env.cli.synthesize"):
        monkeypatch.setattr(f"{module}.RECIPE", QUICK)
    threads = torch.get_num_threads()
    yield ["networks_for_tests:plain", "--weights", str(tmp_path / "plain.pt")]
    torch.set_num_threads(threads)


def synthesize(network, out, *options):
    size = ["--input-shape", "3,8,8", "--normalization", "0.5,0.4,0.3/0.2,0.25,0.3"]
    return main(["synthesize", *network, "--out", str(out), "--steps", "2", *size, *options])


def test_synthesize_writes_a_sheet_that_images_can_be_loaded_from(tiny, tmp_path, capsys):
    out = tmp_path / "images.png"
    assert synthesize(tiny, out, "--count", "6", "--seed", "5") == 0
    pixels, texts = read_sheet(out)
    assert pixels.shape == (6, *SHAPE)
    assert (texts["seed"], texts["recipe_steps"]) == ("5", "2")
    assert texts["network"] == "networks_for_tests:plain"
    inputs = load_images(out, None, shape=SHAPE, normalization=None)
    torch.testing.assert_close(inputs, pixels.float() / 255)
    said = capsys.readouterr().out
    assert "lfgcl prune networks_for_tests:plain --weights" in said
    assert f"--images {out} --out" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.png", "plain.pt"]


def test_synthesize_goes_on_after_an_interruption(tiny, tmp_path, capsys, monkeypatch):
    assert synthesize(tiny, tmp_path / "whole.png", "--count", "8") == 0

    def interrupted(baseline, index, **arguments):
        if index == 1:
            raise KeyboardInterrupt
        return synthesize_batch(baseline, index, **arguments)

    out = tmp_path / "broken.png"
    with monkeypatch.context() as patched:
        patched.setattr(batches, "synthesize_batch", interrupted)
        assert synthesize(tiny, out, "--count", "8") == 130
    assert "after 1 of 2 batches: the same command goes on" in capsys.readouterr().err
    assert not out.exists()
    assert synthesize(tiny, out, "--count", "8") == 0
    assert torch.equal(read_sheet(out)[0], read_sheet(tmp_path / "whole.png")[0])
    assert not (tmp_path / "broken.png.batches").exists()


def test_synthesize_keeps_what_is_there_and_refuses_other_files(tiny, tmp_path, capsys):
    out = tmp_path / "images.png"
    write_sheet(out, torch.zeros(1, 1, 2, 2, dtype=torch.uint8), {})
    before = out.read_bytes()
    assert synthesize(tiny, out) == 2
    assert "exists: delete it, or give another --out" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert synthesize(tiny, tmp_path / "images.jpg") == 2
    assert "give a name that ends with .png" in capsys.readouterr().err


def test_synthesize_refuses_a_network_without_batchnorm(tmp_path, capsys):
    threads = torch.get_num_threads()
    network = ["networks_for_tests:flattening", "--weights", "random"]
    assert synthesize(network, tmp_path / "images.png") == 2
    torch.set_num_threads(threads)
    assert "has no BatchNorm layer" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_images_are_made_from_networks_without_classes():
    baseline = load_baseline(awaken(segmenting()), input_shape=SHAPE)
    pixels = synthesize_batch(baseline, 0, seed=0, recipe=QUICK)
    assert pixels.shape[1:] == SHAPE
    assert pixels.float().std() > 1
