"""Norms over all channels are cut, and then normalise over those that are left."""

import numpy as np
import pytest
import torch
from networks_for_tests import (
    Head,
    awaken,
    check_exactness,
    images,
    random_strategy,
    simple_problem,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.convnext import LayerNorm2d
from unusual_networks import noise

from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PrunableNetwork, PruningProblem, load_pruned
from lfgcl_env.pruning.moments.norm_statistics import collect_norm_statistics
from lfgcl_env.pruning.structure.channel_norms import channel_axis
from lfgcl_env.pruning.structure.verification import WRONG


class ChannelsLast(nn.Module):
    """A norm of the last axis, on maps."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class InFloat(nn.LayerNorm):
    """A norm that computes in float32 whatever it is given, as CLIP's."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.type(torch.float32)).type(x.dtype)


class Named(nn.Module):
    """A norm that gets its input by name."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x=x)


class Copied(nn.Module):
    """A norm of maps as it is copied from ConvNeXt's code: it is no LayerNorm, but says as much."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.ones(channels)),
            nn.Parameter(torch.zeros(channels)),
        )
        self.normalized_shape, self.eps = (channels,), 1e-6

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(1, keepdim=True)
        x = x / torch.sqrt(x.pow(2).mean(1, keepdim=True) + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class CopiedRms(nn.Module):
    """The same of RMSNorm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.normalized_shape, self.eps = (channels,), 1e-6

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + self.eps)
        return x * self.weight.reshape(1, -1, 1, 1)


NORMS = {
    "layer, maps": lambda c: LayerNorm2d(c),
    "layer, by name": Named,
    "layer": lambda c: ChannelsLast(nn.LayerNorm(c)),
    "layer, plain": lambda c: ChannelsLast(nn.LayerNorm(c, elementwise_affine=False)),
    "layer, no bias": lambda c: ChannelsLast(nn.LayerNorm(c, bias=False)),
    "rms": lambda c: ChannelsLast(nn.RMSNorm(c)),
    "rms, plain": lambda c: ChannelsLast(nn.RMSNorm(c, elementwise_affine=False)),
    "group": lambda c: nn.GroupNorm(1, c),
    "group, plain": lambda c: nn.GroupNorm(1, c, affine=False),
    "layer, in float32": lambda c: ChannelsLast(InFloat(c)),
    "copied": Copied,
    "rms, copied": CopiedRms,
}
KINDS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, Copied, CopiedRms)


def normed(name: str) -> nn.Module:
    """Convolutions with norms between, whose channels have means and scales of their own."""
    torch.manual_seed(0)
    norm = NORMS[name]
    network = awaken(
        nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), norm(16), nn.ReLU()),
            *(nn.Conv2d(16, 12, 3, padding=1), norm(12), nn.ReLU(), Head(12)),
        )
    )
    for module in network.modules():
        if isinstance(module, KINDS) and module.weight is not None:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            if getattr(module, "bias", None) is not None:
                nn.init.uniform_(module.bias, -0.5, 0.5)
    return network


@pytest.mark.parametrize("min_channels", [1, 0])
@pytest.mark.parametrize("name", NORMS)
def test_cut_is_hidden_where_norms_know_what_is_left(name, min_channels):
    baseline = load_baseline(normed(name), input_shape=(3, 32, 32))
    network = PrunableNetwork(baseline, min_channels=min_channels)
    assert [(group.name, group.bundle) for group in network.groups] == [("0", 1), ("3", 1)]
    assert network.lowest.tolist() == [2, 2]
    strategies = [
        np.random.default_rng(seed).integers(network.lowest, network.channels + 1)
        for seed in range(3)
    ]
    check_exactness(network, strategies)


@pytest.mark.parametrize("min_channels", [1, 0])
@pytest.mark.parametrize("name", NORMS)
def test_the_fewest_channels_that_stay_still_tell_images_apart(name, min_channels):
    problem = simple_problem(normed(name), images(8), min_channels=min_channels)
    assert problem.lowest.tolist() == problem.network.lowest.tolist() == [2, 2]
    with torch.no_grad():
        outputs = problem.compress(problem.lowest)(images(8))
    assert float(outputs.std(0).max()) > 1e-3
    for keep in ([1, 6], [6, 1]):
        with pytest.raises(ValueError, match=r"can keep 2 to 1\d channels"):
            problem.evaluate(keep)


def test_what_norms_need_is_counted_in_bundles_and_in_no_more_than_there_are():
    one = nn.Sequential(nn.Conv2d(3, 1, 1), nn.GroupNorm(1, 1), nn.Conv2d(1, 6, 1), Head(6))
    assert simple_problem(awaken(one), images()).network.lowest.tolist() == [1, 1]
    pairs = nn.Sequential(
        *(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=4), nn.GroupNorm(1, 8), Head(8))
    )
    network = simple_problem(awaken(pairs), images()).network
    assert [(g.channels, g.bundle) for g in network.groups] == [(4, 2)]
    assert network.lowest.tolist() == [1]


@pytest.mark.parametrize("channels", [2, 3])
def test_narrow_groups_in_front_of_norms_make_a_problem(channels):
    problem = simple_problem(awaken(Branch(nn.GroupNorm(1, channels), channels)), images(8))
    assert problem.lowest.tolist() == [2]
    assert problem.evaluate(problem.lowest).similarity > 0


def test_the_layers_say_what_they_have_left():
    for name in NORMS:
        smaller = simple_problem(normed(name), images()).compress([5, 3])
        first, second = (module for module in smaller.modules() if isinstance(module, KINDS))
        for module, channels in ((first, 5), (second, 3)):
            if isinstance(module, nn.GroupNorm):
                assert (module.num_groups, module.num_channels) == (1, channels)
            else:
                assert module.normalized_shape == (channels,)
            assert module.weight is None or module.weight.shape == (channels,)


@pytest.mark.parametrize("repair", ["none", "least_squares", "sequential"])
@pytest.mark.parametrize("name", NORMS)
def test_networks_are_repaired_saved_and_loaded(name, repair, tmp_path):
    problem = simple_problem(normed(name), images(8), repair=repair)
    assert problem.evaluate(problem.channels).similarity == pytest.approx(1, abs=1e-5)
    keep = random_strategy(problem, 2)
    smaller = problem.compress(keep)
    loaded = load_pruned(problem.save(tmp_path / "pruned", keep, smaller), normed(name))
    with torch.no_grad():
        assert torch.equal(loaded(images(3, seed=5)), smaller(images(3, seed=5)))
    for one, other in zip(loaded.modules(), smaller.modules(), strict=True):
        assert one.extra_repr() == other.extra_repr()


@pytest.mark.parametrize(
    "name",
    ["layer, maps", "layer", "layer, no bias", "rms", "group", "copied", "rms, copied"],
)
def test_repairs_make_up_for_other_means_and_variances(name):
    scores = []
    for repair in ("none", "least_squares", "sequential"):
        problem = PruningProblem(
            normed(name),
            images(64),
            criterion="obs",
            repair=repair,
            similarity="mse",
            features="output",
        )
        scores.append(problem.evaluate(problem.channels // 2).similarity)
    assert scores[2] > scores[1] > scores[0] + 0.1
    whole = problem.compress(problem.channels)
    with torch.no_grad():
        assert torch.allclose(whole(images()), problem.baseline.network(images()), atol=1e-5)


@pytest.mark.parametrize("name", ["layer, maps", "layer", "rms", "group"])
def test_the_closed_form_scales_a_norm_by_what_it_sees_on_average(name):
    """Of channels that are all alike any number has their mean and variance."""
    network = normed(name)
    problem = simple_problem(network, images(8), repair="least_squares")
    inputs: list[Tensor] = []
    norms = [module for module in network.modules() if isinstance(module, KINDS)]
    handle = norms[0].register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    with torch.no_grad():
        network(images(8))
    handle.remove()
    (x,) = inputs
    x = x.double() if name in ("layer", "rms") else x.double().movedim(1, -1)
    kept = torch.tensor([1, 4, 7, 8, 13])
    axes = [1, 2, 3] if name == "group" else [-1]

    def spread(values: Tensor) -> float:
        square = values.square().mean(axes)
        return float((square - (0 if name == "rms" else values.mean(axes).square())).mean())

    eps = 0.0 if name == "rms" else norms[0].eps
    factor = ((spread(x[..., kept]) + eps) / (spread(x) + eps)) ** 0.5
    moved = float(x[..., kept].mean() - x.mean()) / (spread(x) + eps) ** 0.5
    found = collect_norm_statistics(network, problem.network.plan, [images(8)])
    rescaling = next(iter(found.values())).rescale(kept)
    assert rescaling == pytest.approx((factor, 0.0 if name == "rms" else moved), rel=1e-4)


class Branch(nn.Module):
    """A residual branch with a norm in it."""

    def __init__(self, norm: nn.Module, channels: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.inner, self.norm = nn.Conv2d(6, channels, 1), norm
        self.outer, self.head = nn.Conv2d(channels, 6, 1), Head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head(x + self.outer(self.norm(self.inner(x)).relu()))


@pytest.mark.parametrize("name", NORMS)
def test_whole_branches_go_with_the_norms_in_them(name, tmp_path):
    def build() -> nn.Module:
        return awaken(Branch(NORMS[name](4)))

    problem = simple_problem(build(), images(8), min_channels=0)
    assert problem.network.lowest.tolist() == [0]
    smaller = problem.compress([0])
    loaded = load_pruned(problem.save(tmp_path / "pruned", [0], smaller), build())
    with torch.no_grad():
        network = problem.baseline.network
        x = network.stem(images()).relu()
        expected = network.head(x + network.outer.bias[:, None, None])
        assert torch.allclose(smaller(images()), expected, atol=1e-6)
        assert torch.equal(loaded(images()), smaller(images()))


class Tokens(nn.Module):
    """Residual blocks that normalise a stream of tokens before they read it."""

    def __init__(self, norm: type[nn.Module] = nn.LayerNorm) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 12)
        self.norms = nn.ModuleList(norm(12) for _ in range(3))
        self.widen = nn.ModuleList(nn.Linear(12, 16) for _ in range(2))
        self.narrow = nn.ModuleList(nn.Linear(16, 12) for _ in range(2))
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for norm, widen, narrow in zip(self.norms, self.widen, self.narrow, strict=False):
            x = x + narrow(F.gelu(widen(norm(x))))
        return self.head(self.norms[-1](x).mean(1))


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_streams_between_norms_are_cut_with_scope_all(norm):
    torch.manual_seed(0)
    problem = simple_problem(awaken_tokens(Tokens(norm)), noise(8, 6, 5), scope="all")
    assert "embed" in [group.name for group in problem.groups]
    strategies = [random_strategy(problem, seed) for seed in range(3)]
    check_exactness(problem.network, strategies, inputs=noise(3, 6, 5, seed=3))


class Holding(nn.LayerNorm):
    """A norm that holds the layer behind it, which others call."""

    def __init__(self) -> None:
        super().__init__(8)
        self.widen = nn.Linear(8, 12)


class Held(nn.Module):
    """Tokens through such a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.last = nn.Linear(6, 8), Holding(), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm.widen(self.norm(self.embed(x))).relu().mean(1))


@pytest.mark.parametrize("min_channels", [1, 0])
def test_a_norm_is_cut_as_well_as_a_layer_that_it_holds(min_channels, tmp_path):
    def build() -> nn.Module:
        torch.manual_seed(0)
        network = awaken_tokens(Held())
        nn.init.uniform_(network.norm.weight, 0.5, 1.5)
        nn.init.uniform_(network.norm.bias, -0.5, 0.5)
        return network

    problem = simple_problem(
        build(), noise(64, 4, 6), repair="sequential", min_channels=min_channels
    )
    assert [group.name for group in problem.groups] == ["embed", "norm.widen"]
    assert problem.lowest[0] == 2  # the layer would go with the norm
    strategies = [random_strategy(problem, seed) for seed in range(3)]
    check_exactness(problem.network, strategies, inputs=noise(3, 4, 6, seed=3))
    keep = problem.channels // 2
    smaller = problem.compress(keep)
    assert problem.evaluate(keep).similarity > problem.score_network(problem.cut(keep), keep)
    loaded = load_pruned(problem.save(tmp_path / "pruned", keep, smaller), build)
    with torch.no_grad():
        assert torch.equal(loaded(noise(3, 4, 6)), smaller(noise(3, 4, 6)))


def test_streams_of_stock_transformers_are_cut_with_their_attention(tmp_path):
    def build() -> nn.Module:
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True)
        encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(12))
        return nn.Sequential(nn.Linear(5, 12), encoder, nn.Linear(12, 4)).eval()

    problem = simple_problem(build(), noise(8, 6, 5), scope="all")
    keep = np.maximum(1, problem.channels // 2)
    smaller = problem.compress(keep)
    attention = smaller[1].layers[0].self_attn
    assert (attention.embed_dim, attention.kdim, attention.vdim) == (6, 6, 6)
    loaded = load_pruned(problem.save(tmp_path / "pruned", keep, smaller), build)
    with torch.no_grad():
        assert torch.equal(loaded(noise(3, 6, 5)), smaller(noise(3, 6, 5)))


def awaken_tokens(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    return network.eval()


@pytest.mark.parametrize("norm", ["layernorm2d", "rmsnorm2d"])
def test_streams_of_timms_convnext_are_cut_with_its_norms(norm, tmp_path):
    problem = simple_problem(awaken(convnext(norm)), images(32), scope="all", repair="sequential")
    assert [group.name for group in problem.groups if "mlp" not in group.name] == STREAMS
    strategies = [random_strategy(problem, seed) for seed in range(3)]
    check_exactness(problem.network, strategies)
    keep = problem.channels // 2
    smaller = problem.compress(keep)
    assert problem.evaluate(keep).similarity > problem.score_network(problem.cut(keep), keep)
    loaded = load_pruned(problem.save(tmp_path / "pruned", keep, smaller), convnext(norm))
    with torch.no_grad():
        assert torch.equal(loaded(images(3, seed=5)), smaller(images(3, seed=5)))


def test_norms_with_another_formula_stay_whole():
    """timm's SimpleNorm divides by the deviation of one channel less, and subtracts no means."""
    problem = simple_problem(awaken(convnext("simplenorm2d")), images(4), scope="all")
    reasons = {exclusion.name: exclusion.reason for exclusion in problem.excluded}
    assert all(reasons[name] == WRONG for name in STREAMS)


STREAMS = ["stem.0", *(f"stages.{stage}.downsample.1" for stage in (1, 2, 3))]


def convnext(norm: str) -> nn.Module:
    """timm's network with one block a stage, and without layer scales, which keep streams whole."""
    module = pytest.importorskip("timm.models.convnext", reason="a development extra")
    torch.manual_seed(0)
    shape = {"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 20), "conv_mlp": True, "kernel_sizes": 3}
    return module.ConvNeXt(norm_layer=norm, ls_init_value=None, num_classes=5, **shape)


class Joined(nn.Module):
    """A norm over the channels of two layers, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 8), nn.Linear(6, 4)
        self.norm, self.last = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(torch.cat([self.left(x), self.right(x)], -1))).mean(1)


def test_groups_that_meet_in_a_norm_are_cut_exactly():
    torch.manual_seed(0)
    network = awaken_tokens(Joined())
    nn.init.uniform_(network.norm.weight, 0.5, 1.5)
    problem = simple_problem(network, noise(16, 4, 6))
    assert [group.name for group in problem.groups] == ["left", "right"]
    check_exactness(problem.network, [[5, 3], [2, 2], [8, 2]], inputs=noise(3, 4, 6, seed=3))


def test_the_axis_of_a_norm_is_the_one_that_it_normalises_over():
    x = torch.randn(2, 4, 4, 4)
    for norm, axis in ((LayerNorm2d(4), 1), (nn.LayerNorm(4), -1), (nn.GroupNorm(1, 4), 1)):
        assert channel_axis(norm, x, norm(x)) == axis
        for other in (norm(x) + 0.01, norm(x).flatten(1), (norm(x), x)):
            assert channel_axis(norm, x, other) is None
        assert channel_axis(norm, None, norm(x)) is None
        assert channel_axis(norm, x, norm(x).half().double()) is None
    assert channel_axis(nn.GroupNorm(2, 4), x, nn.GroupNorm(2, 4)(x)) is None


def test_what_a_norm_sees_of_all_channels_is_computed_once(monkeypatch):
    network = normed("layer")
    problem = simple_problem(network, images(8))
    found = collect_norm_statistics(network, problem.network.plan, [images(8)])
    statistics = next(iter(found.values()))
    sizes: list[int] = []
    deviation = type(statistics)._deviation

    def counting(self, channels: Tensor) -> float:
        sizes.append(len(channels))
        return deviation(self, channels)

    monkeypatch.setattr(type(statistics), "_deviation", counting)
    for kept in (torch.arange(5), torch.arange(7), torch.arange(3)):
        statistics.rescale(kept)
    assert sorted(sizes) == [3, 5, 7, 16]
