"""Whether an exported file computes what the network computes in PyTorch."""

from collections.abc import Callable

import torch
from torch import Tensor

from lfgcl_env.edge.value_checks import with_kind
from lfgcl_env.export.exported_module import ExportedModule

CLOSE = 1e-4
"""The largest difference that counts as rounding, relative to an output's largest value."""

BATCHES = (1, 3, 8)
"""Numbers of images that a file is checked on; it is traced with 2."""


def largest_error(
    module: ExportedModule, run: Callable[[Tensor], dict[str, Tensor]], images: Tensor, what: str
) -> tuple[float, tuple[int, ...]]:
    """Compare a file with the module that was written to it, on batches of several sizes.

    Args:
        module: what was written.
        run: runs the file.
        images: inputs, which are repeated for larger batches.
        what: names the file and its runtime in errors.

    Returns:
        The largest difference of an output, relative to the output's largest value, and the sizes
        of batches. One image is left out where the network itself does not take it alone.

    Raises:
        ValueError: if the file does not run, or a difference is no rounding.
    """
    largest, sizes = 0.0, []
    for size in BATCHES:
        batch = repeated(images, size)
        try:
            with torch.no_grad():
                expected = module.by_name(batch)
        except Exception:
            if size == 1:
                continue
            raise
        try:
            found = run(batch)
        except Exception as failure:  # every runtime has its own
            reason = with_kind(failure)
            raise ValueError(f"{what} does not run on {size} images ({reason})") from failure
        for name, tensor in expected.items():
            error = _difference(found[name], tensor)
            if not error <= CLOSE:
                raise ValueError(
                    f"{what} gives another output {name!r} than in PyTorch: on {size} images it "
                    f"differs by {error:.1e} of the largest value, and {CLOSE:.0e} is rounding, so "
                    "its forward depends on values or on the number of images in a way that this "
                    "format cannot hold: try another one"
                )
            largest = max(largest, error)
        sizes.append(size)
    return largest, tuple(sizes)


def repeated(images: Tensor, count: int) -> Tensor:
    """Return the first images, from the beginning again where there are fewer.

    >>> repeated(torch.arange(3), 5)
    tensor([0, 1, 2, 0, 1])
    """
    return images[torch.arange(count) % len(images)]


def _difference(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference relative to the largest value; infinite for other shapes."""
    if found.shape != expected.shape:
        alone = expected.numel() == found.numel() and min(len(found), len(expected)) <= 1
        if not alone:
            return float("inf")
        found = found.reshape(expected.shape)  # some networks drop the dimension of one image
    scale = expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    return float((found - expected).abs().max() / scale)
