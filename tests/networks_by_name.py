"""Networks that commands build by their names: calls that graphs of operations get wrong."""

from torch import Tensor, nn
from torch.nn import functional as F
from unusual_networks import splitting

__all__ = ["Flagged", "Masked", "Refining", "Tied", "splitting"]


class Refining(nn.Module):
    """Refines its map three times by one block of two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.block = nn.Sequential(
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 16, 3, padding=1)
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        for _ in range(3):
            x = x + self.block(x)
        return self.head(x.relu().mean((2, 3)))


class Tied(nn.Module):
    """Two convolutions with one weight, and others behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.widen, self.stem = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 12, 3, padding=1)
        self.here, self.there = nn.Conv2d(12, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.there.weight = self.here.weight
        self.last, self.head = nn.Conv2d(12, 24, 3, padding=1), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.widen, self.stem, self.here, self.there, self.last):
            x = layer(x).relu()
        return self.head(x.mean((2, 3)))


class Masked(nn.Module):
    """Takes a mask too, which nobody gives."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.middle = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 24, 3, padding=1)
        self.last, self.head = nn.Conv2d(24, 24, 3, padding=1), nn.Linear(24, 5)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.stem(x).relu()
        if mask is not None:
            x = x * mask.mean(1, keepdim=True)
        return self.head(self.last(self.middle(x).relu()).relu().mean((2, 3)))


class Flagged(nn.Module):
    """Attention behind a flag, and an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 2
        self.patches, self.norm = nn.Conv2d(3, 12, 4, stride=4), nn.LayerNorm(12)
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)
        self.up, self.down = nn.Linear(12, 48), nn.Linear(48, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor, is_causal: bool = False) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        count, tokens, width = x.shape
        parts = self.qkv(self.norm(x)).reshape(count, tokens, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
        x = x + self.out(mixed.transpose(1, 2).reshape(count, tokens, -1))
        return self.head((x + self.down(F.gelu(self.up(x)))).mean(1))
