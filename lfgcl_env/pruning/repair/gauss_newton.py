"""Closed-form Gauss-Newton steps that refit a producer and its consumer together.

The producer's channels pass a ReLU, capped or not, and feed the consumer alone. The error behind
the consumer, propagated back through its weights and divided by their Gram matrix, is the wanted
change of every active inner value. The producer is fitted to that change by least squares on its
own input patches, moved by the exact step length of the linearised pair, and the consumer is solved
anew: after the last step by the caller, on all images.
Steps after the first are made conjugate to the one before (Polak-Ribiere).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from lfgcl_env.pruning.moments.patches import gram_with_one
from lfgcl_env.pruning.moments.second_moments import ridge_of, ridge_strength
from lfgcl_env.pruning.repair.conv_bn import ConvBN, convolve
from lfgcl_env.pruning.repair.layer_fit import Fit
from lfgcl_env.pruning.repair.rectifier import Rectifier
from lfgcl_env.pruning.repair.ridge_fit import factorise

_RIDGE = 0.1
_DAMPING = 0.3
_PLAIN = Rectifier()


@dataclass(frozen=True)
class Pair:
    """A producer and its consumer on the first chunks of images.

    Attributes:
        producer: its own fit, whose patches are the producer's inputs at ``positions``.
        consumer: its fit, solved already.
        between: the rectifier that the producer's channels pass.
        inputs: of the producer in the pruned network, in chunks.
        target: the baseline's values at the consumer's point, in the same chunks.
        other: the other operand at that point in the pruned network, or None.
        positions: the sampled output positions of the producer, for every chunk.
        places: those of the consumer.
    """

    producer: Fit
    consumer: Fit
    between: Rectifier
    inputs: list[Tensor]
    target: list[Tensor]
    other: list[Tensor] | None
    positions: list[Tensor]
    places: list[Tensor]


@torch.no_grad()
def alternate(pair: Pair, steps: int) -> None:
    """Improve the producer, in place; the consumer is to be solved anew afterwards.

    Args:
        pair: the layers and their values.
        steps: how many.
    """
    first, second = pair.producer.layer, pair.consumer.layer
    count = sum(places.numel() for places in pair.positions)
    patches = pair.producer.patches[:count]
    moments = pair.producer.moments
    strength = ridge_strength(_RIDGE, patches.shape[1] + 1, count)
    factor = factorise(moments, ridge_of(moments, strength))
    matrix = first.matrix()
    weight, bias = first.folded(matrix)
    inner = [convolve(first.module, v, weight, bias) for v in pair.inputs]
    direction: Tensor | None = None
    change: Tensor | None = None
    preconditioned: Tensor | None = None
    for number in range(1, steps + 1):
        state = _pull_back(pair, inner)
        previous, change = change, gram_with_one(patches, state.pull) / count
        step = torch.cholesky_solve(torch.linalg.solve(_inner_gram(second), change.T).T, factor)
        if direction is None or previous is None or preconditioned is None:
            direction = step
        else:
            turn = (step * (change - previous)).sum()
            turn = turn / (preconditioned * previous).sum().clamp(min=1e-30)
            direction = step + max(0.0, float(turn)) * direction
        preconditioned = step
        moves, length = _line_search(pair, inner, state, direction)
        matrix = matrix + length * direction.T
        for z, move in zip(inner, moves, strict=True):
            z.add_(move, alpha=length)
        if number < steps:
            pair.consumer.read([pair.between(z) for z in inner], pair.places)
            pair.consumer.solve(1)
    first.set(matrix)


@dataclass
class _State:
    """Errors behind a consumer.

    Attributes:
        pull: propagated back to the producer's sampled positions; (rows, channels).
        live: positive where a rectifier lets the error through, or None without one, in chunks.
        errors: in chunks.
    """

    pull: Tensor
    live: list[Tensor | None]
    errors: list[Tensor]


def _pull_back(pair: Pair, inner: list[Tensor]) -> _State:
    """Propagate the error behind the consumer back to the inner values at chosen positions."""
    first, second = pair.producer.layer, pair.consumer.layer
    weight, bias = second.folded(second.matrix())
    conv = second.module
    assert isinstance(conv, nn.Conv2d)
    behind = pair.consumer.relu
    pulls, lives, errors = [], list[Tensor | None](), []
    for index, z in enumerate(inner):
        output = convolve(conv, pair.between(z), weight, bias)
        if pair.other is not None:
            output += pair.other[index]
        target = pair.target[index]
        live = None
        if behind is not None:
            live = behind.gate(target, output)
            error = behind(target).sub_(behind.replace(output))
        else:
            error = target - output
        pull = conv2d_input(  # type: ignore[no-untyped-call]
            z.shape, weight, error, conv.stride, conv.padding, conv.dilation
        )
        pull = pair.between.pull_back(pull, z)
        pulls.append(first.rows_of_output(pull, pair.positions[index]))
        lives.append(live)
        errors.append(error)
    return _State(torch.cat(pulls), lives, errors)


def _line_search(
    pair: Pair, inner: list[Tensor], state: _State, direction: Tensor
) -> tuple[list[Tensor], float]:
    """Return how a unit step moves the inner values, and the best length of the linearised pair."""
    first, second = pair.producer.layer, pair.consumer.layer
    weight, _ = second.folded(second.matrix())
    delta, bias = first.folded(direction.T)
    along = squared = 0.0
    moves = []
    for v, z, live, error in zip(pair.inputs, inner, state.live, state.errors, strict=True):
        move = convolve(first.module, v, delta, bias)
        reaction = convolve(second.module, pair.between.pull_back(move, z), weight, None)
        if live is not None:
            reaction = _PLAIN.pull_back(reaction, live)
        along += float((reaction * error).sum())
        squared += float(reaction.square().sum())
        moves.append(move)
    return moves, along / squared if squared > 0 else 0.0


def _inner_gram(layer: ConvBN) -> Tensor:
    """Return the damped Gram matrix of the consumer's weights over input channels; float64."""
    weight, _ = layer.folded(layer.matrix())
    rows = weight.double().movedim(1, 0).flatten(1)
    matrix = rows @ rows.T
    return matrix + torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device) * (
        _DAMPING * matrix.diagonal().mean() + 1e-12
    )
