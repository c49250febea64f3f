"""Second moments of layers' input patches, and the least squares that they make a closed form."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lfgcl_env.pruning.moments.patches import PatchReader, choose_positions, gram
from lfgcl_env.pruning.structure.layers import TRANSPOSED, layer_kind
from lfgcl_env.pruning.structure.slice_plan import SlicePlan

LARGEST = 2400
"""Patch features above which only per-channel moments are kept: 2,305 (3x3, 256 channels) fit.

Their matrix takes 43 MB, and ordering their channels some seconds; both grow fast beyond."""

ROWS_PER_FEATURE = 32
FEWEST_ROWS = 16384


@dataclass(frozen=True)
class Moments:
    """What a layer's inputs look like in the baseline, over the calibration images.

    Attributes:
        reader: cuts patches and lays out weights.
        gram: E[a a^T] of patches a with a constant 1 last; float64, (features, features). For
            layers with more than :data:`LARGEST` features the second moments between different
            features are taken for products of means, so that ``gram`` is None and
            ``mean``/``variance`` are all there is.
        mean: E[a]; float64, (features,).
        variance: variances of features, 0 for the constant; float64, (features,).
        weights: the baseline's weights and bias as a matrix; float64, (out, features).
        intercept: whether the repaired layer may change its bias: it has one, or a BatchNorm
            alone follows, whose mean can take it.
        rows: how many patches were seen.
    """

    reader: PatchReader
    gram: Tensor | None
    mean: Tensor
    variance: Tensor
    weights: Tensor
    intercept: bool
    rows: int

    @property
    def ridge(self) -> float:
        """Strength of the ridge in closed-form repair, see :func:`ridge_strength`."""
        return ridge_strength(RIDGE, self.reader.features, self.rows)

    @property
    def energy(self) -> float:
        """Mean over positions of the squared deviation of the outputs from their mean."""
        if self.gram is None:
            return float((self.weights.square() @ self.variance).sum())
        centred = self.gram - torch.outer(self.mean, self.mean)
        return float(((self.weights @ centred) * self.weights).sum())


def collect_moments(
    network: nn.Module,
    plan: SlicePlan,
    batches: Sequence[Tensor],
    followed_by: dict[str, str],
    *,
    seed: int = 0,
    every: bool = False,
) -> dict[str, Moments]:
    """Collect moments of all layers whose inputs follow groups, in one pass over the images.

    Positions are sampled, the same number for every image, so that a layer gets
    :data:`ROWS_PER_FEATURE` rows per feature and at least :data:`FEWEST_ROWS`, or all there are.
    Memory: one float64 matrix of (taps x channels + 1) squared per layer, 30 MB for ResNet-56's 27.

    Args:
        network: the baseline or an exact copy, in evaluation mode.
        plan: its slice plan.
        batches: calibration images on the network's device.
        followed_by: BatchNorm that alone follows a layer, see
            :class:`~lfgcl_env.pruning.structure.groups.Tracing`.
        seed: of the positions.
        every: take every position instead of a sample.
    """
    sums: dict[str, _Sums] = {}
    total = sum(len(batch) for batch in batches)
    generator = torch.Generator().manual_seed(seed)
    handles = []
    for name, reader in _readers(network, plan):
        sums[name] = _Sums(reader, None if every else total, generator)
        handles.append(network.get_submodule(name).register_forward_pre_hook(sums[name].add))
    try:
        with torch.inference_mode():
            for batch in batches:
                network(batch)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: collected.moments(
            network.get_submodule(name),
            _has_intercept(network.get_submodule(name), followed=name in followed_by),
        )
        for name, collected in sums.items()
        if collected.used
    }


def large_layers(network: nn.Module, plan: SlicePlan) -> dict[str, int]:
    """Name the layers that get per-channel moments alone, with their numbers of patch features.

    Their closed-form repair moves the means of what was removed into the bias, and backward
    elimination treats their channels as independent. Sequential repair refits them like all others.

    Args:
        network: the baseline.
        plan: its slice plan.
    """
    return {name: r.features for name, r in _readers(network, plan) if _is_large(r)}


def _readers(network: nn.Module, plan: SlicePlan) -> Iterator[tuple[str, PatchReader]]:
    """Yield the dense layers whose inputs follow groups."""
    for name, slices in plan.layers.items():
        module = network.get_submodule(name)
        if slices.into is not None and layer_kind(module) in (
            "conv",
            "linear",
            "transposed",
        ):
            yield name, PatchReader(module)


def _has_intercept(module: nn.Module, *, followed: bool) -> bool:
    """Whether a refit may change a layer's bias.

    Not that of a transposed convolution: the rows of its taps, which are fitted, share it.
    """
    return not isinstance(module, TRANSPOSED) and (followed or module.bias is not None)


def _is_large(reader: PatchReader) -> bool:
    return reader.features > LARGEST


class _Sums:
    """Running sums of one layer."""

    def __init__(self, reader: PatchReader, images: int | None, generator: torch.Generator) -> None:
        self._reader = reader
        self._generator = generator
        wanted = max(FEWEST_ROWS, ROWS_PER_FEATURE * reader.features)
        self._per_image = None if images is None else -(-wanted // images)
        self._full = not _is_large(reader)
        self._count = 0
        self._gram: Tensor | None = None
        self._first: Tensor | None = None
        self._second: Tensor | None = None

    @property
    def used(self) -> bool:
        """Whether the network uses the layer, which it does not with one for training only."""
        return self._count > 0

    def add(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        available = self._reader.positions(x)
        wanted = available if self._per_image is None else self._per_image
        chosen = choose_positions(len(x), available, wanted, self._generator).to(x.device)
        # Sixty-four images at a time bound the memory of the rows.
        for part, places in zip(torch.split(x, 64), torch.split(chosen, 64), strict=True):
            rows = self._reader.rows(part, places)
            self._count += len(rows)
            if self._full:
                self._gram = _add(self._gram, gram(rows))
            else:
                double = rows.double()
                self._first = _add(self._first, double.sum(dim=0))
                self._second = _add(self._second, double.square().sum(dim=0))

    def moments(self, module: nn.Module, intercept: bool) -> Moments:
        weight, bias = module.weight, module.bias
        assert isinstance(weight, Tensor)
        assert bias is None or isinstance(bias, Tensor)
        weights = self._reader.matrix(weight.detach().double(), bias).detach()
        if self._full:
            assert self._gram is not None
            matrix = self._gram / self._count
            mean = matrix[-1].clone()
            variance = (matrix.diagonal() - mean.square()).clamp(min=0)
            return Moments(self._reader, matrix, mean, variance, weights, intercept, self._count)
        assert self._first is not None
        assert self._second is not None
        mean = self._first / self._count
        variance = (self._second / self._count - mean.square()).clamp(min=0)
        return Moments(self._reader, None, mean, variance, weights, intercept, self._count)


def _add(total: Tensor | None, part: Tensor) -> Tensor:
    return part if total is None else total.add_(part)


RIDGE = 1e-4
"""Ridge of closed-form repair, relative to the mean second moment of a feature."""


def ridge_strength(strength: float, features: int, rows: int) -> float:
    """Return a ridge's strength, raised where there are few rows for the features.

    Moments of n rows are off by about features / n of their size; a ridge of a fraction of that
    keeps a fit to a few images from following their noise. With 32 rows per feature and more it
    has hardly any effect.

    Args:
        strength: relative to the mean second moment of a feature.
        features: numbers in a row.
        rows: rows seen.
    """
    return strength + 0.1 * max(0.0, features / rows - 1 / ROWS_PER_FEATURE)


def ridge_of(matrix: Tensor, strength: float = RIDGE) -> Tensor:
    """Return the ridge of each feature of a moment matrix; the constant gets almost none.

    Args:
        matrix: (features, features), the constant last.
        strength: relative to the mean of the diagonal without the constant.
    """
    diagonal = matrix.diagonal()
    scale = diagonal[:-1].mean() if len(diagonal) > 1 else diagonal.new_ones(())
    ridge = torch.full_like(diagonal, float(strength * scale) + 1e-12)
    ridge[-1] = 1e-12
    return ridge


def solve_ridge(matrix: Tensor, cross: Tensor, prior: Tensor, ridge: Tensor) -> Tensor:
    """Return the W that minimises E|t - W a|^2 + |(W - prior) sqrt(ridge)|^2; (outputs, features).

    Args:
        matrix: E[a a^T]; (features, features).
        cross: E[t a^T]; (outputs, features).
        prior: (outputs, features).
        ridge: one positive number per feature.

    Singular moments are met by raising the ridge tenfold until the factorisation succeeds, so that
    the result is always finite.
    """
    for _ in range(12):
        factor, failed = torch.linalg.cholesky_ex(matrix + torch.diag(ridge))
        if not int(failed):
            solution = torch.cholesky_solve((cross + prior * ridge).T, factor).T
            if bool(torch.isfinite(solution).all()):
                return solution
        ridge = ridge * 10
    return prior


def repaired_weights(moments: Moments, kept: Tensor) -> Tensor:
    """Refit a layer that sees some of its input channels to the output it had with all of them.

    Closed form: W' = argmin E|W a - W' a_S|^2 + ridge |W' - W_S|^2, with the ridge towards the
    baseline's own weights, so that keeping everything gives these back. (The usual ridge towards
    zero would shrink them.) Without an intercept the constant column stays the baseline's. With
    per-channel moments alone, the means of what was removed move into the intercept.
    Without any inputs the intercept is the mean output, whether or not the layer had a bias.

    Args:
        moments: of the layer.
        kept: input channels (positions of the input dimension) that stay, ascending; int64.

    Returns:
        float64, (out, taps x kept + 1).
    """
    if not len(kept):
        return (moments.weights @ moments.mean)[:, None]
    columns = moments.reader.columns(kept)
    last = moments.reader.features - 1
    whole = torch.cat([columns, columns.new_tensor([last])])
    prior = moments.weights[:, whole]
    if len(kept) == moments.reader.channels:
        return prior
    if moments.gram is None:
        removed = torch.ones(last + 1, dtype=torch.bool, device=columns.device)
        removed[whole] = False
        result = prior.clone()
        if moments.intercept:
            result[:, -1] += moments.weights[:, removed] @ moments.mean[removed]
        return result
    free = whole if moments.intercept else columns
    matrix = moments.gram[free][:, free]
    target = moments.weights if moments.intercept else moments.weights[:, :-1]
    known = moments.gram[: target.shape[1]][:, free]
    if moments.intercept:
        return solve_ridge(matrix, target @ known, prior, ridge_of(matrix, moments.ridge))
    ridge = torch.full_like(
        matrix.diagonal(), float(moments.ridge * matrix.diagonal().mean()) + 1e-12
    )
    solved = solve_ridge(matrix, target @ known, prior[:, :-1], ridge)
    return torch.cat([solved, prior[:, -1:]], dim=1)
