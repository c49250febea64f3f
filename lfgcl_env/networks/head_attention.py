"""Multi-head attention that can have any number of heads of any width.

``nn.MultiheadAttention`` holds queries, keys and values in one matrix of three times its inputs,
and takes the width of a head for inputs divided by heads: without some of its heads it would need
fewer channels all along the network. The one here computes the same from four linear layers, of
which the first three give heads times their width. They are cut, repaired and counted as all linear
layers are.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class HeadAttention(nn.Module):
    """Computes what ``nn.MultiheadAttention`` does, with heads that can go one by one.

    Args:
        stock: the module that it replaces; its output projection is taken over.

    Attributes:
        num_heads: how many heads there are.
        head_dim: channels of a head.
        q: gives the queries; (..., heads * head_dim).
        k: gives the keys.
        v: gives the values.
        out_proj: reads what heads give.

    >>> stock = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    >>> x = torch.randn(1, 3, 8)
    >>> torch.allclose(HeadAttention(stock)(x, x, x)[0], stock(x, x, x)[0], atol=1e-6)
    True
    """

    # nn.TransformerEncoderLayer reads these; so it never takes its fast path, which needs the
    # stock module's one matrix.
    in_proj_weight = None
    in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(self, stock: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads, self.head_dim = stock.num_heads, stock.head_dim
        self.dropout, self.batch_first = stock.dropout, stock.batch_first
        joint, bias = stock.in_proj_weight, stock.in_proj_bias
        apart = (stock.q_proj_weight, stock.k_proj_weight, stock.v_proj_weight)
        weights = apart if joint is None else joint.chunk(3)
        biases = (None, None, None) if bias is None else bias.chunk(3)
        # Asked of the whole: where gradients are off, its parts never want one.
        trainable = [(one if joint is None else joint).requires_grad for one in apart]
        self.q, self.k, self.v = map(_linear, weights, trainable, biases)
        if bias is not None:
            for layer in (self.q, self.k, self.v):
                layer.bias.requires_grad_(bias.requires_grad)
        self.out_proj = stock.out_proj
        self.train(stock.training)

    @property
    def embed_dim(self) -> int:
        """Channels of what queries are made of, and of the output."""
        return self.out_proj.out_features

    @property
    def kdim(self) -> int:
        """Channels of what keys are made of."""
        return self.k.in_features

    @property
    def vdim(self) -> int:
        """Channels of what values are made of."""
        return self.v.in_features

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend, with the arguments and results of ``nn.MultiheadAttention``.

        ``is_causal`` only says what ``attn_mask`` is, and is ignored.
        """
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal needs attn_mask, which it describes")
        attended = attend(
            self.q(query),
            self.k(key),
            self.v(value),
            self.num_heads,
            self.head_dim,
            batch_first=self.batch_first,
            key_padding_mask=key_padding_mask,
            attn_mask=attn_mask,
            dropout=self.dropout if self.training else 0.0,
            need_weights=need_weights,
            average=average_attn_weights,
        )
        return self.out_proj(attended[0]), attended[1]

    def extra_repr(self) -> str:
        """Return the number of heads and their width."""
        return f"num_heads={self.num_heads}, head_dim={self.head_dim}"


@torch.fx.wrap  # one operation for whoever traces the network
def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    num_heads: int,
    head_dim: int,
    *,
    batch_first: bool,
    key_padding_mask: Tensor | None,
    attn_mask: Tensor | None,
    dropout: float,
    need_weights: bool,
    average: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return what heads give, (..., heads * width), and the weights they give it by, if needed."""
    batched = q.dim() == 3
    parts = [part if batched else part.unsqueeze(0 if batch_first else 1) for part in (q, k, v)]
    if not batch_first:
        parts = [part.transpose(0, 1) for part in parts]
    q, k, v = (p.reshape(*p.shape[:2], num_heads, head_dim).transpose(1, 2) for p in parts)
    mask = _merge(attn_mask, key_padding_mask, q, batched)
    weights = None
    if need_weights:
        scores = (q * head_dim**-0.5) @ k.transpose(-2, -1)
        weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
        mixed = weights @ v
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout)
    mixed = mixed.transpose(1, 2).flatten(2)
    if not batch_first:
        mixed = mixed.transpose(0, 1)
    if not batched:
        mixed = mixed.squeeze(0 if batch_first else 1)
    if weights is not None:
        weights = weights.mean(1) if average else weights
        weights = weights if batched else weights.squeeze(0)
    return mixed, weights


def _merge(
    attn_mask: Tensor | None, key_padding_mask: Tensor | None, q: Tensor, batched: bool
) -> Tensor | None:
    """Return what is added to scores, (images, heads, queries, keys) or what extends to that."""
    mask: Tensor | None = None
    if attn_mask is not None:
        mask = _additive(attn_mask, q)
        if mask.dim() == 3:  # one for every head of every image
            mask = mask.reshape(q.shape[0], q.shape[1], *mask.shape[1:])
    if key_padding_mask is not None:
        padding = _additive(key_padding_mask, q)
        padding = (padding if batched else padding.unsqueeze(0))[:, None, None]
        mask = padding if mask is None else mask + padding
    return mask


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    """Return a mask as numbers to add to scores; True of a flag is what is hidden."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, float("-inf"))
    return mask.to(like.dtype)


def _linear(weight: Tensor, trainable: bool, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    layer.weight = _copied(weight, trainable)
    if bias is not None:
        layer.bias = _copied(bias, trainable)
    return layer


def _copied(tensor: Tensor, trainable: bool) -> nn.Parameter:
    copied = tensor.detach().clone(memory_format=torch.contiguous_format)
    return nn.Parameter(copied, requires_grad=trainable)
