"""What problems are given: a module as a baseline, and images that fit it."""

from torch import Tensor, nn

from lfgcl_env.networks import Baseline
from lfgcl_env.networks.baseline import build_baseline
from lfgcl_env.networks.several_inputs import Packing, Several, is_several, pack_inputs
from lfgcl_env.pruning.checks import check_fit, check_images


def load_module(network: nn.Module, images: Tensor | Several) -> Baseline:
    """Load a module that takes images of this shape, or such inputs."""
    packing, shape = None, None
    if is_several(images):
        packing = Packing.of(images)  # type: ignore[arg-type]
    else:
        shape = tuple(check_images(images).shape[1:])  # type: ignore[arg-type]
    return build_baseline(
        network,
        "published",
        {},
        input_shape=shape,
        normalization=None,
        seed=0,
        packing=packing,
    )


def fitting(baseline: Baseline, images: Tensor | Several, what: str) -> Tensor:
    """Return images that fit a network, several inputs packed."""
    checked = check_images(pack_inputs(baseline.packing, images, baseline.title), what)
    check_fit(baseline, checked)
    return checked
