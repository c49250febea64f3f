"""Replacing attention that cannot lose heads by one that can and computes the same."""

import sys
from collections import Counter

import torch
from torch import Tensor, nn

from lfgcl_env.networks.draws import own_draws
from lfgcl_env.networks.head_attention import HeadAttention
from lfgcl_env.networks.outputs import Shape, named_outputs
from lfgcl_env.networks.padded_encoder import PaddedEncoder
from lfgcl_env.networks.prepared import copy_module


def with_free_heads(network: nn.Module) -> nn.Module:
    """Return a network whose stock attention modules can lose heads.

    Replaced are ``nn.MultiheadAttention`` and torchvision's ``ShiftedWindowAttention``, of these
    very types, without hooks. Modules with added keys (``add_bias_kv``, ``add_zero_attn``) stay.

    Returns:
        The network itself where nothing is replaced, else a copy.

    >>> layer = nn.TransformerEncoderLayer(8, 2, batch_first=True)
    >>> type(with_free_heads(layer).self_attn).__name__, type(layer.self_attn).__name__
    ('HeadAttention', 'MultiheadAttention')
    """
    if not find_stock(network):
        return network
    return free_heads(copy_module(network))


def free_heads(network: nn.Module) -> nn.Module:
    """Replace the modules inside a network in place; return the network, or what replaces it."""
    replaced = {module: _freed(module) for module in find_stock(network)}
    for encoder in [module for module in network.modules() if _nests(module)]:
        if not replaced.keys().isdisjoint(encoder.modules()):
            del encoder.use_nested_tensor  # which needs the stock module's one matrix
            encoder.__class__ = PaddedEncoder
    for parent in list(network.modules()):
        for key, child in parent._modules.items():
            if child in replaced:
                parent._modules[key] = replaced[child]
    return replaced.get(network, network)


def computes_the_same(stock: nn.Module, free: nn.Module, shape: Shape) -> bool:
    """Whether a network gives what another one does, up to rounding; True if that one fails.

    Args:
        stock: in evaluation mode on the CPU.
        free: likewise.
        shape: of one input, such as (channels, height, width).
    """
    noise = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    given = []
    for network in (stock, free):
        with torch.inference_mode(), own_draws(0):
            try:
                given.append(named_outputs(network(noise.clone())))
            except Exception:  # a network of one's own may raise anything
                return network is stock
    wanted, found = given
    return wanted.keys() == found.keys() and all(
        found[place].shape == one.shape
        and torch.allclose(found[place], one, 1e-3, _rounding(one), equal_nan=True)
        for place, one in wanted.items()
    )


def _rounding(output: Tensor) -> float:
    known = output[output.isfinite()]
    return 1e-4 * float(known.abs().max()) if known.numel() else 0.0


def _nests(module: nn.Module) -> bool:
    """Whether an encoder makes nested tensors of sequences with padding."""
    return isinstance(module, nn.TransformerEncoder) and bool(module.use_nested_tensor)


def find_stock(network: nn.Module) -> list[nn.Module]:
    """Return the modules that can be replaced, none of whose parameters another one shares."""
    # Encoders of one's own may do anything with nested tensors.
    own = [m for m in network.modules() if _nests(m) and type(m) is not nn.TransformerEncoder]
    left = {inner for encoder in own for inner in encoder.modules()}
    modules = list(network.modules())
    owners = Counter(p for module in modules for p in module._parameters.values() if p is not None)
    return [
        module
        for module in modules
        if _is_stock(module)
        and module not in left
        and all(owners[p] == 1 for p in module.parameters())
    ]


def _is_stock(module: nn.Module) -> bool:
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        return False
    if type(module) is nn.MultiheadAttention:
        held = {key for key, tensor in module._parameters.items() if tensor is not None}
        plain = "in_proj_weight" in held or {f"{n}_proj_weight" for n in "qkv"} <= held
        return plain and module.bias_k is None and not module.add_zero_attn
    swin = sys.modules.get("torchvision.models.swin_transformer")
    kinds = () if swin is None else (swin.ShiftedWindowAttention, swin.ShiftedWindowAttentionV2)
    return type(module) in kinds


def _freed(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.MultiheadAttention):
        return HeadAttention(module)
    from lfgcl_env.networks.window_attention import freed

    return freed(module)  # type: ignore[arg-type]
