"""The trained network to be pruned, with everything needed to feed and to rebuild it."""

import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from lfgcl_env.edge.choices import closest
from lfgcl_env.edge.schema import check_value, short
from lfgcl_env.edge.value_checks import check_seed, check_shape
from lfgcl_env.networks.builders import (
    TORCHVISION,
    call_builder,
    check_arguments,
    find_builder,
)
from lfgcl_env.networks.detectors import DenseOutputs, dense_outputs
from lfgcl_env.networks.draws import own_draws
from lfgcl_env.networks.embedded_weights import embedded_names, load_embedded
from lfgcl_env.networks.feeding import Feeding, feed, feed_plainly, is_fed
from lfgcl_env.networks.free_heads import computes_the_same, with_free_heads
from lfgcl_env.networks.normalization import IMAGENET, Normalization, as_normalization
from lfgcl_env.networks.outputs import Shape, find_outputs, holds_classes
from lfgcl_env.networks.plain_module import make_plain
from lfgcl_env.networks.prepared import copy_module, settle
from lfgcl_env.networks.published import (
    PUBLISHED,
    check_published,
    fetch,
    is_published_file,
    load_published,
)
from lfgcl_env.networks.several_inputs import Packing
from lfgcl_env.networks.shortcut_conversion import with_projections
from lfgcl_env.networks.state_dicts import fit_state_dict, read_state_dict


@dataclass(frozen=True, eq=False)
class Baseline:
    """A trained network and what has to be known to use it.

    Attributes:
        network: in eval mode, on the CPU.
        name: what :func:`build_network` rebuilds it from, such as ``"resnet56"``; None if it
            cannot be rebuilt from a name, as a module that was passed.
        arguments: the keyword arguments to rebuild it with ``name``.
        input_shape: of one input: (channels, height, width), or 1 to 4 other sizes.
        outputs: shape for one image of every output that can be compared, by its place in what
            the network returns, ``""`` for a tensor alone; see :func:`find_outputs`.
        normalization: of its inputs; None if it is unknown or there is none.
        weights: ``"published"``, ``"embedded"``, ``"random"``, the path of a file, or ``"given"``
            for weights that came with the module or function.
        feeding: how ``network`` is called, where it is not called as its user does: with several
            inputs packed to one, or for the dense outputs of a detector; None for all others.
    """

    network: nn.Module
    name: str | None
    arguments: dict[str, Any]
    input_shape: Shape
    outputs: dict[str, Shape]
    normalization: Normalization | None
    weights: str
    feeding: Packing | DenseOutputs | None = None

    @property
    def packing(self) -> Packing | None:
        """How several inputs are packed to one; None for one."""
        return self.feeding if isinstance(self.feeding, Packing) else None

    @property
    def title(self) -> str:
        """The name, or for a module that was passed its class."""
        return self.name or type(self.network).__name__

    @property
    def num_classes(self) -> int | None:
        """How many classes there are; None unless the only output is (images, classes)."""
        shapes = list(self.outputs.values())
        known = len(shapes) == 1 and len(shapes[0]) == 1 and holds_classes(shapes[0])
        return shapes[0][0] if known else None


def load_baseline(
    network: str | Callable[..., nn.Module] | nn.Module,
    weights: str | os.PathLike[str] = "published",
    *,
    input_shape: Sequence[int] | None = None,
    normalization: Normalization | Sequence[Sequence[float]] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> Baseline:
    """Load a network to be pruned.

    Args:
        network: one of :func:`network_names`, ``"torchvision:NAME"``,
            ``"package.module:function"``, a function that returns a module, or a module. A
            module is never changed: one in training mode, on another device or of another
            precision than float32 is copied, as is one whose attention cannot lose heads, see
            :func:`~lfgcl_env.networks.free_heads.with_free_heads`, unless the network computes
            something else or fails with attention that can. ``torch.compile`` and
            DataParallel are taken off.
        weights: ``"published"``: the checked published weights, torchvision's own (``DEFAULT``),
            or whatever a function or module brings along; ``"embedded"``: from this package,
            without a download; ``"random"``: drawn with ``seed``; else the path of a state dict
            (``.safetensors`` or written by ``torch.save``).
        input_shape: of one input: (channels, height, width), or 1 to 4 other sizes, such as
            (channels, length); by default (3, 32, 32), for torchvision's networks the crop size of
            their weights (mostly 224).
        normalization: of the inputs, a :class:`Normalization` or a pair ``(mean, std)``; by
            default that of the published or embedded weights, and None for functions and modules.
        seed: of random weights; the global random state is left alone. Functions are therefore
            called by one thread at a time: one that waits for other threads that load networks
            never returns.
        **arguments: passed to the builder, such as ``num_classes=100``. With ``shortcut="B"`` the
            CIFAR ResNets' weights are converted, see :func:`with_projections`, so that their
            residual streams can be pruned too.

    Raises:
        ValueError: if a name or argument is unknown, weights are damaged or do not fit, or the
            network does not take inputs of this shape or returns no tensors.
        FileNotFoundError: if there is no weights file.
        OSError: if published weights cannot be downloaded.

    >>> baseline = load_baseline("resnet20", weights="random", num_classes=100)
    >>> baseline.num_classes, baseline.input_shape, baseline.weights
    (100, (3, 32, 32), 'random')
    """
    return build_baseline(
        network,
        weights,
        arguments,
        input_shape=input_shape,
        normalization=normalization,
        seed=seed,
    )


def build_baseline(
    network: str | Callable[..., nn.Module] | nn.Module,
    weights: str | os.PathLike[str],
    arguments: Mapping[str, Any],
    *,
    input_shape: Sequence[int] | None,
    normalization: Normalization | Sequence[Sequence[float]] | None,
    seed: int,
    packing: Packing | None = None,
) -> Baseline:
    """Load a network to be pruned, with its builder's arguments in a dictionary.

    See :func:`load_baseline`, whose own arguments cannot be among those of the builder. With
    ``packing`` the network takes several inputs, and ``input_shape`` is left out.
    """
    check_value(weights, str | os.PathLike, "weights", "a word or a path")
    check_seed(seed)
    weights, arguments = os.fspath(weights), dict(arguments)
    given = as_normalization(normalization)
    if isinstance(network, nn.Module):
        source = _from_module(network, weights, arguments)
    else:
        source = _from_builder(network, weights, arguments, given, seed)
    settled = settle(make_plain(source.network))
    what = source.name or type(source.network).__name__
    if packing is None:
        shape = check_shape(source.input_shape if input_shape is None else input_shape)
    else:
        shape = packing.shape
    if is_fed(settled):  # a baseline's own
        settled = feed_plainly(copy_module(settled))
    dense = dense_outputs(settled)
    feeding = dense if packing is None else packing
    free = with_free_heads(settled)
    fed = _feed(free, feeding)
    if free is not settled and not computes_the_same(stock := _feed(settled, feeding), fed, shape):
        fed = stock
    return Baseline(
        network=fed,
        name=source.name,
        arguments=source.arguments,
        input_shape=shape,
        outputs=find_outputs(fed, shape, what, None if packing is None else str(packing)),
        normalization=given or source.normalization or (dense.normalization if dense else None),
        weights=source.weights,
        feeding=feeding,
    )


def _feed(network: nn.Module, feeding: Feeding | None) -> nn.Module:
    """Return a copy that is called in this way, or the network itself."""
    if feeding is None:
        return network
    copied = copy_module(network)
    feed(copied, feeding)
    return copied


class _Source(NamedTuple):
    network: nn.Module
    name: str | None
    arguments: dict[str, Any]
    weights: str
    normalization: Normalization | None = None
    input_shape: Sequence[int] = (3, 32, 32)


def _from_module(network: nn.Module, weights: str, arguments: dict[str, Any]) -> _Source:
    if weights not in ("published", "given"):
        raise ValueError(
            f"weights {weights!r} cannot be put into a module that was passed: load them into it "
            "first, or give its function as 'package.module:function'"
        )
    if arguments:
        raise ValueError(
            f"a module that was passed takes no arguments ({', '.join(arguments)}): they are for "
            "networks that are built from a name or by a function"
        )
    return _Source(network, None, {}, "given")


def _from_builder(
    network: str | Callable[..., nn.Module],
    weights: str,
    arguments: dict[str, Any],
    given: Normalization | None,
    seed: int,
) -> _Source:
    if not isinstance(network, str):
        if not callable(network):
            raise ValueError(
                f"network {short(network)} is neither a name, nor a function that returns a "
                "module, nor a torch.nn.Module"
            )
        return _from_function(network, _importable_name(network), weights, arguments, seed)
    with own_draws(seed):  # a module may draw as it is imported
        builder = find_builder(network)
    if weights == "embedded":
        return _from_package(network, arguments, seed)
    if network.startswith(TORCHVISION):
        return _from_torchvision(network, weights, arguments, given, seed)
    if ":" in network:
        return _from_function(builder, network, weights, arguments, seed)
    return _from_name(network, weights, arguments, given, seed)


def _build(
    builder: Callable[..., nn.Module], name: str, arguments: dict[str, Any], seed: int
) -> nn.Module:
    """Call a builder. Other threads, which would draw its numbers, wait for nothing else."""
    with own_draws(seed):
        return call_builder(builder, name, arguments)


def _from_name(
    name: str, weights: str, arguments: dict[str, Any], given: Normalization | None, seed: int
) -> _Source:
    published = PUBLISHED.get(name)
    if weights == "published":
        check_published(name)
        assert published is not None
        _check_arguments(name, arguments, {"num_classes": published.num_classes}, "published")
    network = _build(find_builder(name), name, arguments, seed)
    normalization = None
    if published is not None:
        normalization = published.normalization
    elif name in embedded_names():
        normalization = load_embedded(name).normalization
    if published is not None and weights == "published":
        state = with_projections(load_published(name), network)
        fit_state_dict(network, state, str(published.path))
    elif weights != "random":
        fit_state_dict(network, with_projections(_read(weights), network), weights)
        if (
            given is None
            and published is not None
            and not is_published_file(weights, published.url)
        ):
            _warn_of_normalization(weights, name, published.normalization)
    return _Source(network, _if_json(name, arguments), arguments, weights, normalization)


def _from_package(name: str, arguments: dict[str, Any], seed: int) -> _Source:
    embedded = load_embedded(name)
    fixed = {key: value for key, value in embedded.arguments.items() if key != "shortcut"}
    _check_arguments(name, arguments, fixed, "embedded")
    arguments = embedded.arguments | arguments
    network = _build(find_builder(name), name, arguments, seed)
    fit_state_dict(network, with_projections(embedded.state, network), str(embedded.path))
    return _Source(network, name, arguments, "embedded", embedded.normalization)


def _from_torchvision(
    name: str, weights: str, arguments: dict[str, Any], given: Normalization | None, seed: int
) -> _Source:
    from torchvision import models

    check_arguments(name, find_builder(name), arguments)
    default = models.get_model_weights(name.removeprefix(TORCHVISION)).DEFAULT
    transforms = default.transforms()
    normalization = IMAGENET
    if weights == "published":
        trained = {"num_classes": len(default.meta["categories"])}
        _check_arguments(name, arguments, trained, "published")
        fetch(default.url)  # here, because threads that build networks wait for the block below
        with own_draws(seed):
            try:
                network = find_builder(name)(weights=default, **arguments)
            except OSError:
                raise
            except Exception as error:
                raise ValueError(
                    f"the published weights of {name} do not fit a network built with {arguments}"
                ) from error
        normalization = Normalization(tuple(transforms.mean), tuple(transforms.std))
        # GoogLeNet and Inception: the weights imply arguments that rebuilding without them needs.
        implied = ("transform_input", "aux_logits")
        arguments = {k: getattr(network, k) for k in implied if hasattr(network, k)} | arguments
    else:
        network = _build(find_builder(name), name, arguments, seed)
        if weights != "random":
            fit_state_dict(network, _read(weights), weights)
            if given is None and not is_published_file(weights, default.url):
                _warn_of_normalization(weights, name, normalization)
    crop = transforms.crop_size
    side = int(crop if isinstance(crop, int) else crop[0])
    name_or_none = _if_json(name, arguments)
    return _Source(network, name_or_none, arguments, weights, normalization, (3, side, side))


def _from_function(
    function: Callable[..., nn.Module],
    name: str | None,
    weights: str,
    arguments: dict[str, Any],
    seed: int,
) -> _Source:
    state = None if weights in ("published", "random", "given") else _read(weights)
    network = _build(function, name or repr(function), arguments, seed)
    if state is None:  # the function alone decides what its weights are
        return _Source(network, _if_json(name, arguments), arguments, "given")
    # It may be the function's own, kept for the next call.
    network = copy_module(make_plain(network))
    fit_state_dict(network, state, weights)
    return _Source(network, _if_json(name, arguments), arguments, weights)


def _read(weights: str) -> dict[str, Tensor]:
    if not os.path.exists(weights):
        raise FileNotFoundError(
            f"weights {weights!r} is neither 'published', nor 'embedded', nor 'random', nor an "
            f"existing file.{closest(weights, ['published', 'embedded', 'random'])}"
        )
    return read_state_dict(weights)


def _check_arguments(
    name: str, arguments: dict[str, Any], trained: dict[str, Any], weights: str
) -> None:
    for argument, value in trained.items():
        if arguments.get(argument, value) != value:
            other = f"{name}_cifar{arguments[argument]}"
            known = f"take the network {other!r} with weights='embedded', "
            raise ValueError(
                f"the {weights} weights of {name} have {argument}={value!r}, not "
                f"{arguments[argument]!r}: leave it out, {known * (other in embedded_names())}or "
                "give weights='random' or the path of a state dict"
            )


def _warn_of_normalization(weights: str, name: str, normalization: Normalization) -> None:
    warnings.warn(
        f"{weights!r} does not say how its inputs were normalised: taking what {name} is published "
        f"with, mean {normalization.mean} and std {normalization.std}; give normalization=(mean, "
        "std) to be sure",
        UserWarning,
        stacklevel=5,
    )


def _importable_name(function: Callable[..., Any]) -> str | None:
    """Return ``"module:function"`` if that leads back to ``function`` in any process."""
    module = getattr(function, "__module__", None)
    path = getattr(function, "__qualname__", None)
    if not module or not path or module == "__main__":
        return None
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return f"{module}:{path}" if found is function else None


def _if_json(name: str | None, arguments: dict[str, Any]) -> str | None:
    """Return ``name`` if the arguments can be written down beside it, else None."""
    try:
        json.dumps(arguments)
    except (TypeError, ValueError, RecursionError):
        return None
    return name
