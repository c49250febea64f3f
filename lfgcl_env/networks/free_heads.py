"""Replacing attention that cannot lose heads by one that can and computes the same."""

import sys
from collections import Counter

from torch import nn

from lfgcl_env.networks.head_attention import HeadAttention
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
    if not _find_stock(network):
        return network
    return free_heads(copy_module(network))


def free_heads(network: nn.Module) -> nn.Module:
    """Replace the modules inside a network in place; return the network, or what replaces it."""
    replaced = {module: _freed(module) for module in _find_stock(network)}
    for parent in list(network.modules()):
        for key, child in parent._modules.items():
            if child in replaced:
                parent._modules[key] = replaced[child]
        if replaced and isinstance(parent, nn.TransformerEncoder):
            parent.use_nested_tensor = False  # which needs the stock module's one matrix
    return replaced.get(network, network)


def _find_stock(network: nn.Module) -> list[nn.Module]:
    """Return the modules that can be replaced, none of whose parameters another one shares."""
    modules = list(network.modules())
    owners = Counter(p for module in modules for p in module._parameters.values() if p is not None)
    return [
        module
        for module in modules
        if _is_stock(module) and all(owners[p] == 1 for p in module.parameters())
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
