"""Attention that can lose heads computes what the stock modules do."""

import itertools

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import SwinTransformer
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

from lfgcl_env.networks.free_heads import free_heads, with_free_heads
from lfgcl_env.networks.head_attention import HeadAttention

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


def test_encoders_of_pytorch_run_on_masked_sequences():
    layer = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True)
    stock = nn.TransformerEncoder(layer, 2).eval()
    x, padding = torch.randn(2, 5, 12), torch.zeros(2, 5, dtype=torch.bool)
    padding[0, 3:] = True
    free = with_free_heads(stock)
    with torch.no_grad():
        wanted = stock(x, src_key_padding_mask=padding)
        found = free(x, src_key_padding_mask=padding)
    assert torch.allclose(found[~padding], wanted[~padding], atol=1e-5)


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
