"""Attention that can lose heads computes what the stock modules do."""

import itertools

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import SwinTransformer
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

from lfgcl_env.networks import load_baseline
from lfgcl_env.networks.free_heads import free_heads, with_free_heads
from lfgcl_env.networks.head_attention import HeadAttention
from lfgcl_env.pruning import PruningProblem, load_pruned

V2 = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}


def masks(queries: int, keys: int) -> dict[str, Tensor | None]:
    draw = torch.Generator().manual_seed(0)
    return {
        "none": None,
        "added": torch.randn(queries, keys, generator=draw),
        "flags": torch.ones(queries, keys, dtype=torch.bool).triu(1),
        "of every head": torch.rand(2 * 3, queries, keys, generator=draw) > 0.8,
    }


@pytest.mark.parametrize("mask", masks(4, 5))
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("arguments", [{}, {"bias": False}, {"kdim": 8, "vdim": 6}])
def test_multi_head_attention_is_the_stock_one(arguments, batch_first, mask):
    torch.manual_seed(0)
    stock = nn.MultiheadAttention(12, 3, batch_first=batch_first, **arguments).eval()
    inputs = [
        torch.randn((2, count, size) if batch_first else (count, 2, size))
        for count, size in ((4, 12), (5, stock.kdim), (5, stock.vdim))
    ]
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    if mask == "added":
        padding = torch.zeros(2, 5).masked_fill(padding, float("-inf"))
    free = with_free_heads(stock)
    assert isinstance(free, HeadAttention)
    for needed, average, hidden in itertools.product([True, False], [True, False], [None, padding]):
        given = {
            "attn_mask": masks(4, 5)[mask],
            "key_padding_mask": hidden,
            "need_weights": needed,
            "average_attn_weights": average,
        }
        wanted, weights = stock(*inputs, **given)
        found, own = free(*inputs, **given)
        assert torch.allclose(found, wanted, atol=1e-6)
        assert (own is None) == (weights is None)
        assert weights is None or torch.allclose(own, weights, atol=1e-6)


def test_multi_head_attention_takes_sequences_without_images():
    stock = nn.MultiheadAttention(12, 3).eval()
    x = torch.randn(5, 12)
    wanted, weights = stock(x, x, x)
    found, own = with_free_heads(stock)(x, x, x)
    assert torch.allclose(found, wanted, atol=1e-6)
    assert torch.allclose(own, weights, atol=1e-6)


def encoder(norm: nn.Module | None = None, **arguments: bool) -> nn.TransformerEncoder:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True, dropout=0.0)
    return nn.TransformerEncoder(layer, 2, norm, **arguments).eval()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("case", ["ends", "starts", "gradients", "training", "mask", "unpadded"])
@pytest.mark.parametrize("norm", [None, nn.LayerNorm(12)], ids=["bare", "norm"])
@pytest.mark.parametrize("arguments", [{}, {"enable_nested_tensor": False}], ids=["nests", "never"])
def test_encoders_hide_padding_where_the_stock_ones_do(arguments, norm, case):
    if norm is not None:
        nn.init.normal_(norm.bias)
    stock = encoder(norm, **arguments).train(case == "training")
    x, padding = torch.randn(2, 5, 12), torch.zeros(2, 5, dtype=torch.bool)
    padding[0] = torch.arange(5) < 2 if case == "starts" else torch.arange(5) > 2
    given = {"mask": torch.ones(5, 5, dtype=torch.bool).triu(1) if case == "mask" else None}
    if case != "unpadded":
        given["src_key_padding_mask"] = padding
    free = with_free_heads(stock)
    with torch.set_grad_enabled(case == "gradients"):
        assert torch.allclose(free(x, **given), stock(x, **given), atol=1e-5)


class Own(nn.TransformerEncoder):
    """Might do anything with nested tensors."""


def test_encoders_of_own_classes_stay():
    stock = encoder()
    stock.__class__ = Own
    assert with_free_heads(stock) is stock
    stock.use_nested_tensor = False
    assert isinstance(with_free_heads(stock).layers[0].self_attn, HeadAttention)


class Reader(nn.Module):
    """Reads the width of its attention, or its weights."""

    def __init__(self, *, weights: bool = False) -> None:
        super().__init__()
        self.weights, self.attention = weights, nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc1, self.fc2 = nn.Linear(8, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.attention.embed_dim**-0.5
        if self.weights:
            x = x @ self.attention.in_proj_weight[:8]
        x = x + self.attention(x, x, x)[0]
        return self.fc2(self.fc1(x.mean(1)).relu())


def test_networks_that_read_weights_of_their_attention_keep_it(tmp_path):
    assert isinstance(load_baseline(Reader(), input_shape=(4, 8)).network.attention, HeadAttention)
    torch.manual_seed(0)
    network = Reader(weights=True).eval()
    assert load_baseline(network, input_shape=(4, 8)).network is network
    problem = PruningProblem(network, torch.randn(32, 4, 8), budget=0.9)
    smaller = problem.compress([7])
    loaded = load_pruned(problem.save(tmp_path / "pruned", [7], smaller), Reader(weights=True))
    x = torch.randn(2, 4, 8)
    assert torch.equal(loaded(x), smaller(x))


class Doubling(nn.Module):
    """Gives something else with any attention but the stock one."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0] * (1 + isinstance(self.attention, HeadAttention))


def test_networks_that_would_compute_something_else_keep_their_attention():
    network = Doubling().eval()
    assert load_baseline(network, input_shape=(4, 8)).network is network


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_padded_inputs_give_what_the_network_gives():
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.fc = encoder(), nn.Linear(12, 5)

        def forward(self, x: Tensor, padding: Tensor) -> Tensor:
            return self.fc(self.encoder(x, src_key_padding_mask=padding).mean(1))

    network = Padded().eval()
    images = {"x": torch.randn(32, 6, 12), "padding": torch.arange(6).expand(32, 6) > 3}
    problem = PruningProblem(network, images, repair="sequential", similarity="mse")
    assert any(group.bundle > 1 for group in problem.groups)
    whole = problem.compress(problem.channels)
    with torch.inference_mode():
        assert torch.allclose(whole(**images), network(**images), atol=1e-5)
    assert problem.evaluate(problem.channels // 2).similarity < 1


@pytest.mark.parametrize("size", [32, 40, 16])
@pytest.mark.parametrize("arguments", [{}, V2], ids=["v1", "v2"])
def test_shifted_windows_are_the_stock_ones(arguments, size):
    torch.manual_seed(0)
    stock = SwinTransformer([4, 4], 12, [2, 2], [2, 4], [4, 4], num_classes=5, **arguments).eval()
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    free = with_free_heads(stock)
    assert free.state_dict().keys() == stock.state_dict().keys()
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        assert torch.allclose(free(x), stock(x), atol=1e-5)
    gradients = []
    for network in (free, stock):
        network(x).square().sum().backward()
        gradients.append({name: p.grad for name, p in network.named_parameters()})
    for name, gradient in gradients[1].items():
        assert torch.allclose(gradients[0][name], gradient, rtol=1e-3, atol=1e-4)


class Twice(nn.Module):
    """Two attention modules that share a weight, one with an added key, and one with a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2)
        self.other.in_proj_weight = self.one.in_proj_weight
        self.added = nn.MultiheadAttention(8, 2, add_zero_attn=True)
        self.hooked = nn.MultiheadAttention(8, 2)
        self.hooked.register_forward_hook(lambda *_: None)


def test_what_would_change_is_not_replaced():
    network = Twice()
    assert with_free_heads(network) is network
    assert with_free_heads(nn.Linear(2, 2)).weight.shape == (2, 2)


def test_frozen_parameters_and_modules_called_twice_stay_so():
    layer = nn.MultiheadAttention(8, 2)
    layer.in_proj_weight.requires_grad_(False)
    network = nn.ModuleList([layer, layer])
    with torch.no_grad():
        free = with_free_heads(network)
    assert network[0] is layer
    assert free[0] is free[1]
    assert not free[0].q.weight.requires_grad
    assert free[0].q.bias.requires_grad
    assert free[0].out_proj.weight.requires_grad
    assert free_heads(free) is free
