"""What of an attention module counts its heads: attributes, and parameters with a row for each."""

from torch import nn

_HEADS = ("num_heads", "n_heads", "num_attention_heads", "n_head", "nhead", "heads")
_WIDTHS = ("attn_dim", "all_head_size", "inner_dim")


def head_count(module: nn.Module) -> str | None:
    """Return the name of the attribute that counts a module's attention heads, or None.

    >>> from lfgcl_env.networks.head_attention import HeadAttention
    >>> head_count(HeadAttention(nn.MultiheadAttention(8, 2)))
    'num_heads'
    """
    for name in _HEADS:
        if type(vars(module).get(name)) is int:
            return name
    return None


def heads_of(module: nn.Module) -> int:
    """Return how many heads a module has for which :func:`head_count` gives a name."""
    name = head_count(module)
    return int(vars(module)[name]) if name else 0


def head_attributes(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the attributes that are proportional to the number of heads."""
    heads = heads_of(module)
    widths = (name for name in _WIDTHS if type(vars(module).get(name)) is int)
    return (
        str(head_count(module)),
        *(name for name in widths if heads and vars(module)[name] % heads == 0),
    )


def head_axes(module: nn.Module) -> dict[str, int]:
    """Map a module's own parameters with a row for each head to the axis of these rows.

    It is the last axis that is as long as there are heads, as in tables of position biases
    (positions, heads). What is taken for one wrongly shows when heads are cut and compared.
    """
    found = {}
    for key, parameter in module.named_parameters(recurse=False):
        axes = [axis for axis, size in enumerate(parameter.shape) if size == heads_of(module)]
        if axes:
            found[key] = axes[-1]
    return found
