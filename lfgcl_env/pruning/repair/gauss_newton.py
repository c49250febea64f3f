"""Closed-form Gauss-Newton steps that refit a producer and its consumer together.

The producer's channels pass a ReLU and feed the consumer alone. The error behind the consumer,
propagated back through its weights and divided by their Gram matrix, is the wanted change of every
active inner value. The producer is fitted to that change by least squares on its own input patches,
moved by the exact step length of the linearised pair, and the consumer is solved anew.
Steps after the first are made conjugate to the one before (Polak-Ribiere).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from lfgcl_env.pruning.moments.patches import gram
from lfgcl_env.pruning.moments.second_moments import ridge_of, ridge_strength
from lfgcl_env.pruning.repair.conv_bn import ConvBN
from lfgcl_env.pruning.repair.layer_fit import Fit, sample

_RIDGE = 1e-2
_DAMPING = 0.1


@dataclass(frozen=True)
class Producer:
    """A layer whose output passes a ReLU and feeds one other layer alone.

    Attributes:
        layer: with its BatchNorm; its weights are changed.
        inputs: its inputs in the pruned network, in chunks of images.
    """

    layer: ConvBN
    inputs: list[Tensor]


def can_alternate(producer: nn.Module, consumer: nn.Module) -> bool:
    """Whether a pair is of a kind that :func:`alternate` knows: 2-D convolutions, zero-padded."""
    return all(
        isinstance(m, nn.Conv2d) and m.padding_mode == "zeros" and not isinstance(m.padding, str)
        for m in (producer, consumer)
    )


@torch.no_grad()
def alternate(producer: Producer, fit: Fit, steps: int, rows: int, seed: int) -> None:
    """Improve two layers in turn, in place.

    Args:
        producer: the first layer.
        fit: the second layer's problem, solved already; its ``inputs`` are replaced.
        steps: how many times.
        rows: patches that the producer is fitted to.
        seed: of the sampled positions.
    """
    first, second = producer.layer, fit.layer
    chosen = sample(producer.inputs, first, rows, seed)
    patches = torch.cat(
        [first.reader.rows(v, c) for v, c in zip(producer.inputs, chosen, strict=True)]
    )
    moments = gram(patches) / len(patches)
    factor = torch.linalg.cholesky(
        moments
        + torch.diag(ridge_of(moments, ridge_strength(_RIDGE, patches.shape[1], len(patches))))
    )
    direction: Tensor | None = None
    change: Tensor | None = None
    preconditioned: Tensor | None = None
    for _ in range(steps):
        pull, state = _pull_back(producer, fit, chosen)
        previous_change = change
        change = gram(patches, pull) / len(patches)
        inner = _inner_gram(second)
        step = torch.cholesky_solve(torch.linalg.solve(inner, change.T).T, factor)
        if direction is None:
            direction = step
        else:
            assert previous_change is not None
            assert preconditioned is not None
            turn = float(
                (step * (change - previous_change)).sum()
                / (preconditioned * previous_change).sum().clamp(min=1e-30)
            )
            direction = step + max(0.0, turn) * direction
        preconditioned = step
        length = _step_length(producer, fit, state, direction)
        first.set(first.matrix() + length * direction.T)
        fit.inputs = [F.relu(first(v)) for v in producer.inputs]
        fit.solve(1)


@dataclass
class _State:
    active: list[Tensor]
    live: list[Tensor | None]
    errors: list[Tensor]


def _pull_back(producer: Producer, fit: Fit, chosen: list[Tensor]) -> tuple[Tensor, _State]:
    """Propagate the error behind the consumer back to the inner values at chosen positions."""
    first, second = producer.layer, fit.layer
    weight = _weight(second)
    conv = second.module
    assert isinstance(conv, nn.Conv2d)
    state = _State([], [], [])
    pulls = []
    for index, v in enumerate(producer.inputs):
        z = first(v)
        active = z > 0
        output = second(F.relu_(z))
        if fit.other is not None:
            output = output + fit.other[index]
        target = fit.target[index]
        live = None
        if fit.relu:
            live = (target > 0) | (output > 0)
            error = target.clamp(min=0) - output.clamp(min=0)
        else:
            error = target - output
        pull = conv2d_input(  # type: ignore[no-untyped-call]
            active.shape,
            weight,
            error,
            conv.stride,
            conv.padding,
            conv.dilation,
        ).mul_(active)
        pulls.append(first.rows_of_output(pull, chosen[index]))
        state.active.append(active)
        state.live.append(live)
        state.errors.append(error)
    return torch.cat(pulls), state


def _step_length(producer: Producer, fit: Fit, state: _State, direction: Tensor) -> float:
    """Return the length that minimises the linearised pair's squared error along ``direction``."""
    first, second = producer.layer, fit.layer
    conv, last = first.module, second.module
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(last, nn.Conv2d)
    weight = _weight(second)
    delta, bias = first.reader.weight(direction.T.to(weight.dtype))
    along = squared = 0.0
    for v, active, live, error in zip(
        producer.inputs, state.active, state.live, state.errors, strict=True
    ):
        inner = F.conv2d(v, delta, bias, conv.stride, conv.padding, conv.dilation).mul_(active)
        reaction = F.conv2d(inner, weight, None, last.stride, last.padding, last.dilation)
        if live is not None:
            reaction.mul_(live)
        along += float((reaction * error).sum(dtype=torch.float64))
        squared += float(reaction.square().sum(dtype=torch.float64))
    return along / squared if squared > 0 else 0.0


def _weight(layer: ConvBN) -> Tensor:
    """Return the weight with its BatchNorm's scale, of the network's type."""
    own = layer.module.weight
    assert isinstance(own, Tensor)
    weight = layer.reader.weight(layer.matrix().to(own.dtype))[0]
    return weight.contiguous(memory_format=torch.channels_last)


def _inner_gram(layer: ConvBN) -> Tensor:
    """Return the damped Gram matrix of the consumer's weights over input channels; float64."""
    rows = _weight(layer).double().movedim(1, 0).flatten(1)
    matrix = rows @ rows.T
    return matrix + torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device) * (
        _DAMPING * matrix.diagonal().mean() + 1e-12
    )
