"""What draws random numbers while networks are prepared: nothing of it is left."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from lfgcl_env.networks import baseline, build_network, load_baseline
from lfgcl_env.networks.draws import own_draws
from lfgcl_env.networks.normalization import IMAGENET


@pytest.fixture
def threads(frequent_switches):
    """Threads that often take turns."""
    with ThreadPoolExecutor(6) as executor:
        yield executor


def small() -> nn.Module:
    layers = [layer for _ in range(20) for layer in (nn.Conv2d(3, 3, 1), nn.ReLU())]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(48, 2))


def test_a_seed_decides_what_is_drawn_and_nothing_is_left_of_it():
    before = torch.get_rng_state()
    with own_draws(7):
        first = torch.rand(3)
        with own_draws():
            inner = torch.rand(2)
        assert torch.equal(torch.rand(2), inner)
    with own_draws(7):
        assert torch.equal(torch.rand(3), first)
    with pytest.raises(RuntimeError, match="size"), own_draws(3):
        torch.rand(3) @ torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_do_not_draw_each_others_numbers(threads):
    before = torch.get_rng_state()

    def draw(seed: int) -> list[float]:
        with own_draws(seed):
            return [float(torch.rand(())) for _ in range(50)]

    wanted = [draw(seed) for seed in range(40)]
    assert list(threads.map(draw, range(40))) == wanted
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_load_the_random_weights_that_a_seed_stands_for(threads):
    before = torch.get_rng_state()

    def load(seed: int) -> torch.Tensor:
        network = load_baseline(small, "random", input_shape=(3, 4, 4), seed=seed).network
        return nn.utils.parameters_to_vector(network.parameters()).detach()

    wanted = [load(seed) for seed in range(4)]
    for seed, found in enumerate(threads.map(load, list(range(4)) * 6)):
        assert torch.equal(found, wanted[seed % 4])
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_are_read_while_other_threads_draw(threads, monkeypatch, tmp_path):
    def draw() -> float:
        with own_draws(3):
            return float(torch.rand(()))

    def read(path: str) -> dict[str, torch.Tensor]:
        drawn.append(threads.submit(draw).result(60))
        return torch.load(path)

    drawn, path = [], tmp_path / "weights.pt"
    torch.save(build_network("resnet20").state_dict(), path)
    monkeypatch.setattr(baseline, "read_state_dict", read)
    load_baseline("resnet20", path, normalization=IMAGENET)
    assert drawn == [draw()]


def test_what_an_import_draws_is_no_part_of_random_weights(monkeypatch, tmp_path):
    (tmp_path / "drawing_module.py").write_text(
        "import torch\n\nSEEN = torch.rand(5)\n\n\n"
        "def build():\n    return torch.nn.Conv2d(3, 4, 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = torch.get_rng_state()
    first, again = (load_baseline("drawing_module:build", seed=1).network for _ in range(2))
    assert torch.equal(first.weight, again.weight)
    assert torch.equal(torch.get_rng_state(), before)
