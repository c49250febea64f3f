"""Networks with attention of every kind, whose heads attend to different places."""

from functools import partial

import pytest
import torch
from networks_for_tests import images, simple_problem
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import SwinTransformer, VisionTransformer
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PrunableNetwork, PruningProblem


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
