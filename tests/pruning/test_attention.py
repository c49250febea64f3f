"""Attention loses whole heads, exactly, wherever a module counts its heads and keeps them apart."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from networks_for_tests import check_exactness, images, random_strategy, simple_problem
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import has_torch_function
from torchvision.models import SwinTransformer, VisionTransformer
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

import lfgcl_env  # noqa: F401
from lfgcl_env.cli.main import main
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PrunableNetwork, PruningProblem, load_pruned
from lfgcl_env.pruning.criteria.criterion import CRITERIA
from lfgcl_env.pruning.structure.layers import count_macs


class Classifier(nn.Module):
    """Patches, one residual block of attention and one of an MLP, and a mean over positions."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 8, stride=8)
        self.norms = nn.ModuleList([nn.LayerNorm(24), nn.LayerNorm(24)])
        self.attention = attention
        self.mlp = nn.Sequential(nn.Linear(24, 20), nn.GELU(), nn.Linear(20, 24))
        self.fc = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.attention(self.norms[0](x))
        x = x + self.mlp(self.norms[1](x))
        return self.fc(x.mean(1))


class Fused(nn.Module):
    """One layer gives queries, keys and values of four heads."""

    def __init__(self, layout: str = "parts first") -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.layout = 4, 6, layout
        self.qkv = nn.Linear(24, 72)
        self.proj = nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, _ = x.shape
        if self.layout == "parts first":
            parts = self.qkv(x).reshape(count, tokens, 3, self.num_heads, self.head_dim)
            q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        else:
            parts = self.qkv(x).reshape(count, tokens, self.num_heads, 3, self.head_dim)
            q, k, v = parts.permute(3, 0, 2, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(count, tokens, -1))


class Causal(Fused):
    """Takes a flag for its products, as many a transformer does."""

    def forward(self, x: Tensor, is_causal: bool = False) -> Tensor:
        count, tokens, _ = x.shape
        parts = self.qkv(x).reshape(count, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
        return self.proj(mixed.transpose(1, 2).reshape(count, tokens, -1))


class Flagged(Classifier):
    """A network that hands such a flag on; its own is never given."""

    def forward(self, x: Tensor, is_causal: bool = False) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.attention(self.norms[0](x), is_causal)
        return self.fc((x + self.mlp(self.norms[1](x))).mean(1))


class Separate(nn.Module):
    """A layer each for queries, keys and values, norms inside heads, scales of heads, a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.n_heads = 4
        self.q, self.k = nn.Linear(24, 20, bias=False), nn.Linear(24, 20, bias=False)
        self.v, self.gate = nn.Linear(24, 32), nn.Linear(24, 32)
        self.norm = nn.LayerNorm(5)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.out = nn.Linear(32, 24)

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.n_heads, -1).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.norm(self.split(self.q(x))) * self.scale, self.norm(self.split(self.k(x)))
        weights = (q @ k.transpose(-2, -1)).softmax(-1)
        mixed = (weights @ self.split(self.v(x))).transpose(1, 2).flatten(2)
        return self.out(mixed * self.gate(x).sigmoid())


class Mixing(Fused):
    """A talking head: what heads give is added up before the projection."""

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, _ = x.shape
        parts = self.qkv(x).reshape(count, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)
        mixed = mixed + mixed.roll(1, 1)
        return self.proj(mixed.transpose(1, 2).reshape(count, tokens, -1))


class Transposed(Fused):
    """The projection reads the first channel of every head, then the second, and so on."""

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, _ = x.shape
        parts = self.qkv(x).reshape(count, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.permute(0, 2, 3, 1).flatten(2))


class Scrambled(Fused):
    """Rows of heads are read as if they were rows of tokens: a reshape without a transpose."""

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, _ = x.shape
        parts = self.qkv(x).reshape(count, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.reshape(count, tokens, -1))


class Reordered(Fused):
    """What heads give is weighted by their number: of fewer heads, others have these weights."""

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, _ = x.shape
        parts = self.qkv(x).reshape(count, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = (
            F.scaled_dot_product_attention(q, k, v) * torch.arange(self.num_heads)[:, None, None]
        )
        return self.proj(mixed.transpose(1, 2).reshape(count, tokens, -1))


class AsWide(Fused):
    """The width of a head is taken for the network's channels divided by heads."""

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, channels = x.shape
        parts = self.qkv(x).reshape(count, tokens, 3, self.num_heads, channels // self.num_heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(count, tokens, channels))


class ReadsItself(Fused):
    """Takes a size from a layer of its own, which tracing takes for a constant."""

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, _ = x.shape
        parts = self.qkv(x).reshape(count, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.proj(mixed.reshape(count, tokens, self.proj.in_features))


class Voters(nn.Module):
    """No attention: as many classifiers as it has heads, or a stack of layers that has a number."""

    def __init__(self, classifiers: bool = False) -> None:
        super().__init__()
        self.heads, self.classifiers = 4, classifiers
        self.conv = nn.Conv2d(3, 8, 3)
        self.first, self.second = nn.Linear(8, 32), nn.Linear(32, 16)
        self.outs = nn.ModuleList(nn.Linear(16, 5) for _ in range(4 if classifiers else 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu().mean((2, 3))
        x = self.second(self.first(x).relu()).relu()
        return sum(self.outs[i](x) for i in range(self.heads if self.classifiers else 1))


class Core(nn.Module):
    """The products of an attention, for modules that count its heads too."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4

    def forward(self, *parts: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        return ((q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2).flatten(2)


class Nested(nn.Module):
    """Two modules count the same heads, one inside the other."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.core = 4, Core()
        self.q, self.k, self.v, self.proj = (nn.Linear(24, 24) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.core(self.q(x), self.k(x), self.v(x)))


class Uncounted(nn.Module):
    """Attention whose number of heads has a name that nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.h = 4
        self.qkv, self.proj = nn.Linear(24, 72), nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.h, 6)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Counts the heads of the attention in it, which counts them under another name."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.inner = Uncounted()
        self.mlp = nn.Sequential(nn.Linear(24, 20), nn.GELU(), nn.Linear(20, 24))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.inner(x)
        return x + self.mlp(x)


class Conditional(Fused):
    """What it does depends on how many heads it has."""

    def __init__(self, condition: str) -> None:
        super().__init__()
        self.condition = condition

    def forward(self, x: Tensor) -> Tensor:
        if self.condition == "loop":
            q, k, v = self.qkv(x).unflatten(-1, (3, -1, 6)).permute(2, 3, 0, 1, 4).unbind(0)
            attend = F.scaled_dot_product_attention
            heads = [attend(q[head], k[head], v[head]) for head in range(self.num_heads)]
            return self.proj(torch.cat(heads, -1))
        assert 24 % self.num_heads == 0
        return self.qkv(x) if self.num_heads == 0 else super().forward(x)


class Stock(nn.Module):
    """PyTorch's own attention, in which no patch attends to later ones."""

    def __init__(self, **arguments: object) -> None:
        super().__init__()
        self.heads = nn.MultiheadAttention(24, 4, **arguments)
        self.register_buffer("mask", torch.ones(16, 16, dtype=torch.bool).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        if not self.heads.batch_first:
            x = x.transpose(0, 1)
        x = self.heads(x, x, x, attn_mask=self.mask)[0]
        return x if self.heads.batch_first else x.transpose(0, 1)


def vit() -> nn.Module:
    return VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=2,
        num_heads=4,
        hidden_dim=24,
        mlp_dim=20,
        num_classes=5,
    )


def swin(**arguments: object) -> nn.Module:
    sizes = ([4, 4], 12, [2, 2], [2, 4], [4, 4])  # 12 channels in two heads, then 24 in four
    return SwinTransformer(*sizes, mlp_ratio=2.0, num_classes=5, **arguments)


def of_timm(name: str, **arguments: object) -> nn.Module:
    timm = pytest.importorskip("timm", reason="a development extra")
    return timm.create_model(name, img_size=32, num_classes=5, **arguments)


BUILDERS = {
    "fused": lambda: Classifier(Fused()),
    "fused, heads first": lambda: Classifier(Fused("heads first")),
    "flag handed on": lambda: Flagged(Causal()),
    "separate": lambda: Classifier(Separate()),
    "nested": lambda: Classifier(Nested()),
    "stock": lambda: Classifier(Stock(batch_first=True)),
    "stock, tokens first": lambda: Classifier(Stock(bias=False)),
    "vit": vit,
    "swin": swin,
    "swin v2": partial(swin, block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2),
    "timm's deit": partial(
        of_timm, "deit_tiny_patch16_224", patch_size=8, embed_dim=24, num_heads=4, depth=2
    ),
    "timm's vit": partial(
        of_timm, "vit_tiny_patch16_224", patch_size=8, embed_dim=24, num_heads=4, depth=2
    ),
    "timm's swin": partial(
        of_timm,
        "swin_tiny_patch4_window7_224",
        window_size=4,
        embed_dim=12,
        depths=(2, 2),
        num_heads=(2, 4),
    ),
}
UNTRACEABLE = {"timm's swin"}
"""It makes its masks on the way."""


def build(name: str) -> nn.Module:
    return lively(BUILDERS[name]())


def lively(network: nn.Module) -> nn.Module:
    """Draw weights with which heads attend to different places."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            if key.endswith(("table", "scale")):
                parameter.copy_(noise)
            elif parameter.dim() > 1:
                parameter.copy_(2 * noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.3 * noise + key.endswith("weight"))
    return network.eval()


def problem_of(network: nn.Module, **arguments: object) -> PruningProblem:
    return simple_problem(network, images(32), **arguments)


def prunable(network: nn.Module, **arguments: object) -> PrunableNetwork:
    return PrunableNetwork(load_baseline(network, input_shape=(3, 32, 32)), **arguments)


@pytest.mark.parametrize("name", BUILDERS)
def test_cut_is_hidden_and_costs_are_counted(name):
    network = prunable(build(name))
    heads = [group for group in network.groups if group.bundle > 1]
    assert [group.channels for group in heads] in ([4], [4, 4], [2, 2, 4, 4])
    draws = (np.random.default_rng(seed) for seed in range(3))
    check_exactness(network, [*(d.integers(1, network.channels + 1) for d in draws)])
    check_exactness(network, [network.lowest])


@pytest.mark.parametrize("name", ["fused", "separate", "stock", "vit", "swin"])
def test_all_heads_of_a_block_may_go_where_that_is_exact(name):
    network = prunable(build(name), min_channels=0)
    heads = [group.bundle > 1 for group in network.groups]
    # "separate" asks for a width that no heads leave open, and the last block of a ViT is the only
    # one in which its class token sees the image.
    assert (
        network.lowest[heads].tolist()
        == {
            "fused": [0],
            "separate": [1],
            "stock": [0],
            "vit": [0, 1],
            "swin": [0, 0, 0, 0],
        }[name]
    )
    check_exactness(network, [network.lowest])


@pytest.mark.parametrize("repair", ["none", "least_squares", "sequential"])
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if "swin" in n else n for n in BUILDERS]
)
def test_networks_are_repaired_saved_loaded_and_trained(name, repair, tmp_path):
    if name in UNTRACEABLE and repair == "sequential":
        with pytest.raises(ValueError, match="sequential repair needs a network whose tensors"):
            problem_of(build(name), repair=repair)
        return
    problem = problem_of(build(name), repair=repair)
    assert problem.evaluate(problem.channels).similarity == pytest.approx(1, abs=1e-5)
    strategy = random_strategy(problem, 2)
    smaller = problem.compress(strategy)
    path = problem.save(tmp_path / "pruned", strategy, smaller)
    loaded = load_pruned(path, build(name))
    with torch.no_grad():
        assert torch.equal(loaded(images(3, seed=5)), smaller(images(3, seed=5)))
    assert [m.extra_repr() for m in loaded.modules()] == [m.extra_repr() for m in smaller.modules()]
    loaded.train()(images(2)).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in loaded.parameters())
    exported = torch.export.export(smaller, (images(2),)).module()
    with torch.no_grad():
        assert torch.allclose(exported(images(2)), smaller(images(2)), atol=1e-5)


@pytest.mark.parametrize("name", ["fused", "vit", "swin"])
def test_refitting_the_output_projection_makes_up_for_heads(name):
    scores = []
    for repair in ("none", "least_squares"):
        problem = problem_of(build(name), repair=repair, similarity="mse")
        keep = problem.channels.copy()
        heads = [index for index, group in enumerate(problem.groups) if group.bundle > 1]
        keep[heads] //= 2
        scores.append(problem.evaluate(keep).similarity)
    assert scores[1] > scores[0] + 0.01


def test_a_head_is_a_bundle_of_the_channels_of_its_layers():
    network = prunable(build("separate"))
    group = network.groups[0]
    assert (group.name, group.channels, group.bundle) == ("attention.q", 4, 5)
    sizes = {member.layer: (member.side, group.bundle_of(member)) for member in group.members}
    assert sizes == {
        "attention.gate": ("out", 8),
        "attention.q": ("out", 5),
        "attention.k": ("out", 5),
        "attention.v": ("out", 8),
        "attention.out": ("in", 8),
        "attention": ("through", 1),
    }
    fused = prunable(build("fused")).groups[0]
    head = [*range(6, 12), *range(30, 36), *range(54, 60)]
    assert fused.positions(np.array([1])).tolist() == head
    first = prunable(build("fused, heads first")).groups[0]
    assert first.positions(np.array([1])).tolist() == list(range(18, 36))


@pytest.mark.parametrize("criterion", sorted(CRITERIA.keys() - {"bn_scale", "hrank"}))
def test_criteria_order_heads(criterion):
    problem = problem_of(build("fused"), criterion=criterion)
    assert sorted(problem._ranking.orders[0].tolist()) == [0, 1, 2, 3]


def test_observations_and_inspections_count_heads(capsys):
    env = gym.make("LFGCL-v0", network=build("swin"), images=images(16), num_images=None)
    observation, _ = env.reset(seed=0)
    assert np.isfinite(observation).all()
    _, _, _, _, info = env.step(env.action_space.sample())
    assert info["keep"][::2].max() <= 4
    assert main(["inspect", "test_attention:vit"]) == 0
    assert "4 x 6" in capsys.readouterr().out


def test_limits_count_the_channels_of_heads():
    network = build("fused")
    assert prunable(network, min_channels=19).rounding.fewest.tolist() == [2, 19]
    assert prunable(network, max_prune_ratio=0.5).rounding.fewest.tolist() == [2, 10]
    kept = prunable(network, protect=["attention"])
    assert [group.name for group in kept.groups] == ["mlp.0"]
    reasons = {e.name: e.reason for e in kept.excluded}
    assert reasons["attention.qkv"] == "protect='attention' keeps it as it is"


def test_an_output_of_zeros_does_not_pass_for_an_exact_cut():
    network = lively(Classifier(Reordered()))
    nn.init.zeros_(network.fc.weight)
    assert [group.name for group in prunable(network).groups] == ["mlp.0"]


MIXES = "attention mixes its heads: channels of attention.qkv reach more than one"


@pytest.mark.parametrize(
    ("attention", "reason"),
    [
        (Mixing, MIXES),
        (Scrambled, MIXES),
        (AsWide, "the network fails without its channels"),
        (Reordered, "removing its channels changes more than hiding them"),
    ],
)
def test_heads_that_cannot_go_stay_and_it_says_why(attention, reason):
    network = prunable(lively(Classifier(attention())))
    assert [group.name for group in network.groups] == ["mlp.0"]
    reasons = {e.name: e.reason for e in network.excluded}
    assert reasons["attention.qkv"].startswith(reason)
    module, inputs = network.baseline.network, images(1)
    assert network.baseline_cost.macs == count_macs(module, inputs)


@pytest.mark.parametrize("classifiers", [False, True])
def test_a_number_called_heads_alone_makes_no_attention(classifiers):
    network = prunable(lively(Voters(classifiers)))
    found = [(group.name, group.channels, group.bundle) for group in network.groups]
    assert found == [("conv", 8, 1), ("first", 32, 1), ("second", 16, 1)]
    check_exactness(network, [np.array([3, 5, 7])])


def test_layers_behind_attention_have_channels_and_no_heads():
    network = prunable(lively(Classifier(Block())))
    found = [(group.name, group.channels) for group in network.groups]
    assert found == [("attention.mlp.0", 20), ("mlp.0", 20)]
    reasons = {e.name: e.reason for e in network.excluded}
    assert reasons["attention.inner.qkv"].startswith("the network fails without its channels")


def test_heads_are_found_where_fused_attention_takes_nan_for_zeros(monkeypatch):
    attention = F.scaled_dot_product_attention

    def forgetful(*arguments: object, **keywords: object) -> Tensor:
        given = attention(*arguments, **keywords)
        return given if has_torch_function(arguments) else given.nan_to_num()

    monkeypatch.setattr(F, "scaled_dot_product_attention", forgetful)
    assert prunable(build("fused")).groups[0].bundle == 18


def test_heads_are_found_where_a_script_attends(monkeypatch):
    @torch.jit.script
    def scripted(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value)

    monkeypatch.setattr(F, "scaled_dot_product_attention", scripted)
    for tokens in (5, 8, 17):  # NaN gets lost on some processors where there are few
        network = lively(nn.Sequential(Fused(), nn.Flatten(), nn.Linear(24 * tokens, 3)))
        groups = PrunableNetwork(load_baseline(network, input_shape=(tokens, 24))).groups
        assert [(group.channels, group.bundle) for group in groups] == [(4, 18)]


def test_heads_that_only_change_places_can_go():
    network = prunable(lively(Classifier(Transposed())))
    assert network.groups[0].name == "attention.qkv"
    check_exactness(network, [np.array([2, 7])])


def test_one_head_alone_stays():
    network = prunable(lively(Classifier(Stock(batch_first=True))))
    assert network.groups[0].channels == 4
    alone = Classifier(nn.Identity())
    alone.attention = Stock(batch_first=True)
    alone.attention.heads = nn.MultiheadAttention(24, 1, batch_first=True)
    reasons = {e.name: e.reason for e in prunable(lively(alone)).excluded}
    assert reasons["attention.heads.q"] == "attention.heads has one attention head"


def test_sequential_repair_refuses_graphs_that_do_not_hold_for_cut_networks():
    network = lively(Classifier(ReadsItself()))
    with pytest.raises(ValueError, match="do not depend on its own sizes"):
        problem_of(network, repair="sequential")
    assert problem_of(network, repair="least_squares").evaluate([2, 7]).similarity > 0


def test_conditions_on_heads_are_traced_and_loops_over_them_are_not():
    network = lively(Classifier(Conditional("conditions")))
    problem = problem_of(network, repair="sequential")
    assert problem.evaluate([1, 7]).similarity > 0
    looped = lively(Classifier(Conditional("loop")))
    with pytest.raises(ValueError, match="do not depend on its own sizes"):
        problem_of(looped, repair="sequential")
    cheap = problem_of(looped, repair="least_squares")
    assert len(cheap.screen([[1, 7], [2, 9]])) == 2
    (finished,) = cheap.repair_all([[2, 7]], images(32))
    assert cheap.score_network(finished, [2, 7]) > cheap.score_network(cheap.cut([2, 7]), [2, 7])


@pytest.mark.parametrize("protect", ["attention", None])
def test_loops_over_heads_that_stay_are_traced(protect):
    looped = Classifier(Conditional("loop") if protect else Voters(classifiers=True))
    network = lively(looped if protect else looped.attention)
    problem = problem_of(network, repair="sequential", protect=[protect] if protect else ())
    assert problem.evaluate(problem.channels // 2).similarity > 0


@pytest.mark.parametrize("name", ["fused", "stock", "swin"])
def test_networks_without_heads_in_a_block_are_saved_and_loaded(name, tmp_path):
    problem = problem_of(build(name), repair="least_squares", min_channels=0)
    strategy = problem.channels.copy()
    strategy[0] = 0
    smaller = problem.compress(strategy)
    loaded = load_pruned(problem.save(tmp_path / "pruned", strategy, smaller), build(name))
    with torch.no_grad():
        assert torch.equal(loaded(images(3)), smaller(images(3)))
