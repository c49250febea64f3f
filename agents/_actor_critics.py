"""Networks of the LFGCL agent: an actor, and an ensemble of critics.

They apply the same weights to every group and exchange a mean message.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._groups import Groups
from ._lfgcl_arguments import Arguments


class Actor(nn.Module):
    """Maps groups to logits of keep ratios, which are equal before it learns."""

    def __init__(self, arguments: Arguments, generator: torch.Generator) -> None:
        super().__init__()
        self.bound, hidden = arguments.logit_bound, arguments.hidden
        self.first = linear(arguments.inputs, hidden, generator)
        self.second = linear(2 * hidden, hidden, generator)
        self.last = linear(hidden, 1, generator)
        nn.init.zeros_(self.last.weight)

    def forward(self, groups: Groups) -> Tensor:
        """Return logits; (batch, groups)."""
        hidden = exchange(F.silu(self.first(groups.inputs)))
        logits: Tensor = self.last(F.silu(self.second(hidden)))[..., 0]
        return self.bound * torch.tanh(logits / self.bound)


class Critics(nn.Module):
    """An ensemble that maps groups and keep ratios to values of strategies.

    Every member has two heads on one body: for returns, and for cheap scores.
    """

    def __init__(self, arguments: Arguments, generator: torch.Generator) -> None:
        super().__init__()
        members, hidden = arguments.critics, arguments.hidden
        self.first = EnsembleLinear(members, arguments.inputs + 4, hidden, generator)
        self.second = EnsembleLinear(members, 2 * hidden, hidden, generator)
        self.last = EnsembleLinear(members, hidden, 2, generator)

    def forward(self, groups: Groups, keep: Tensor) -> Tensor:
        """Return values; (members, batch).

        Args:
            groups: of a batch, or of one observation that holds for all.
            keep: keep ratios (batch, groups), or a batch for every member (members, batch, groups).
        """
        return self.heads(groups, groups.describe(keep))[0]

    def heads(self, groups: Groups, strategy: Tensor) -> tuple[Tensor, Tensor]:
        """Return two values (members, batch) of what :meth:`Groups.describe` says of keep ratios.

        The first is of returns, the second of cheap scores.
        """
        described = groups.inputs if groups.inputs.dim() == 4 else groups.inputs[None]
        strategy = strategy if strategy.dim() == 4 else strategy[None]
        hidden = F.silu(self.first(described, strategy))
        hidden = F.silu(self.second(hidden, hidden.mean(-2, keepdim=True)))
        values: Tensor = self.last(hidden.mean(-2, keepdim=True))[..., 0, :] * hidden.shape[-2]
        return values[..., 0], values[..., 1]


class EnsembleLinear(nn.Module):
    """The linear layers of all members of an ensemble."""

    def __init__(self, members: int, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        weight = torch.randn(members, inputs, outputs, generator=generator) / inputs**0.5
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(torch.zeros(members, outputs))

    def forward(self, *parts: Tensor) -> Tensor:
        """Map inputs, given in parts that stand side by side, to (members, batch, groups, outputs).

        What a part says of all members, strategies or groups alike is multiplied once.

        Args:
            *parts: (members or 1, batch or 1, groups or 1, some of the inputs) each.
        """
        products = []
        weights = torch.split(self.weight, [part.shape[-1] for part in parts], dim=1)
        for part, weight in zip(parts, weights, strict=True):
            flat = part.expand(len(self.weight), -1, -1, -1).flatten(1, 2)
            products.append(torch.bmm(flat, weight).view(len(flat), *part.shape[1:3], -1))
        total = self.bias[:, None, None]
        for product in sorted(products, key=Tensor.numel):  # large ones are added to last
            total = total + product
        return total


def linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """Make a linear layer that leaves the scale of its inputs as it is."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        layer.weight.copy_(torch.randn(inputs, outputs, generator=generator).T / inputs**0.5)
        layer.bias.zero_()
    return layer


def exchange(hidden: Tensor) -> Tensor:
    """Append the mean over all groups to every group; (..., groups, 2 x hidden)."""
    return torch.cat([hidden, hidden.mean(-2, keepdim=True).expand_as(hidden)], dim=-1)
