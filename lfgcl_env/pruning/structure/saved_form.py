"""Pruned networks on disk: one safetensors file, with the structure as JSON in its header.

Reading a file runs no code but this package's and torchvision's, unless the reader trusts the file
or passes the architecture. No size in it is taken on trust: the architecture is built without
memory for its weights, and tensors are read only where they are cut from it.

Header and tensors carry checksums, which protect from damage and edits by hand, not from forgery.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lfgcl_env.edge.files import as_path, write_beside
from lfgcl_env.edge.schema import short
from lfgcl_env.edge.sealed import parse_sealed, sealed
from lfgcl_env.networks import Baseline, build_network
from lfgcl_env.networks.draws import own_draws
from lfgcl_env.networks.free_heads import find_stock, free_heads
from lfgcl_env.networks.plain_module import unwrap
from lfgcl_env.networks.safe_building import build_safely, is_safe
from lfgcl_env.pruning.structure.candidate import Sizes
from lfgcl_env.pruning.structure.emptied import Constant, NoChannels, places_of, put, stand_in
from lfgcl_env.pruning.structure.head_counts import head_axes, head_count, heads_of
from lfgcl_env.pruning.structure.header import FORMAT, LARGEST_HEADER, Header
from lfgcl_env.pruning.structure.layers import (
    layer_kind,
    layer_sizes,
    names_of,
    passes_channels,
    weight_axes,
    weight_rows,
)
from lfgcl_env.pruning.structure.slice_plan import SlicePlan

_KEY = "lfgcl_env"
_FLOATS = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
_OTHERS = {"I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool}


def save_pruned(
    path: str | os.PathLike[str],
    network: nn.Module,
    baseline: Baseline,
    plan: SlicePlan,
    **facts: Any,
) -> Path:
    """Write a pruned network to ``path``, beside it first and then renamed.

    Args:
        path: the file to write; its folder must exist.
        network: the pruned network.
        baseline: what it was cut from; says how to rebuild the architecture.
        plan: the slice plan, which names the layers whose sizes changed.
        **facts: JSON-able facts to keep in the header, such as the strategy and its cost.

    Returns:
        The path.

    Raises:
        OSError: if the file cannot be written; nothing half-written stays.
    """
    tensors = _tensors(network)
    layers = {}
    for name, slices in plan.layers.items():
        out, into = _sizes_left(network.get_submodule(name))
        layers[name] = [out if slices.out else None, into if slices.into else None]
    named = network.named_parameters(remove_duplicate=False)
    normalization = baseline.normalization
    structure = {
        "format": FORMAT,
        "network": baseline.name,
        # Arguments that JSON cannot hold come without a name.
        "arguments": baseline.arguments if baseline.name is not None else {},
        "weights": baseline.weights,
        "input_shape": list(baseline.input_shape) if baseline.packing is None else None,
        "inputs": None if baseline.packing is None else baseline.packing.facts(),
        "num_classes": baseline.num_classes,
        "normalization": normalization and [list(normalization.mean), list(normalization.std)],
        "layers": layers,
        "frozen": sorted(name for name, p in named if not p.requires_grad),
        "stock_attention": bool(find_stock(network)),
        "tensors": _sha256(tensors),
        **facts,
    }
    return _write(path, tensors, structure)


def save_again(path: str | os.PathLike[str], network: nn.Module, **facts: Any) -> Path:
    """Write a network that :func:`load_pruned` returned, with other weights or more facts.

    Args:
        path: the file to write; its folder must exist.
        network: the network, or another one of its sizes with its ``pruned_structure``.
        **facts: JSON-able facts to add to the header.

    Raises:
        OSError: if the file cannot be written; nothing half-written stays.
    """
    tensors = _tensors(network)
    structure: dict[str, Any] = network.pruned_structure | facts  # type: ignore[operator]
    structure = {key: value for key, value in structure.items() if key != "checksum"}
    return _write(path, tensors, structure | {"tensors": _sha256(tensors)})


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's tensors, laid out as files are."""
    return {
        # One number has any stride and counts as contiguous: only a copy is laid out as files are.
        key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, tensor in network.state_dict().items()
    }


def _write(
    path: str | os.PathLike[str], tensors: dict[str, Tensor], structure: dict[str, Any]
) -> Path:
    # As bytes, because safetensors' own files are readable by their owner alone.
    content = save(tensors, metadata={_KEY: sealed(structure)})
    return write_beside(as_path(path, "path"), lambda partial: partial.write_bytes(content))


def read_structure(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the JSON structure in a pruned network's file: architecture, sizes, strategy, costs.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a pruned network's file, or was truncated or damaged.
    """
    with _open_file(path) as file:
        return _header(file, path).facts()


def load_pruned(
    path: str | os.PathLike[str],
    network: nn.Module | Callable[[], nn.Module] | None = None,
    *,
    trust: bool = False,
) -> nn.Module:
    """Rebuild a pruned network from its file; its outputs equal the saved one's exactly.

    The file may name a network of this package or of torchvision. Any other name would run code
    that the file chooses, so it is refused unless ``network`` or ``trust`` is given.

    Args:
        path: a file that ``lfgcl prune`` or :meth:`PruningProblem.save` wrote.
        network: the unpruned architecture, for networks that were given as a module or by the name
            of a function elsewhere; or a function without arguments that returns it, which one
            thread at a time calls and whose random numbers leave no trace. A module is changed and
            returned.
        trust: import and call the function that the file names, whatever it is.

    Returns:
        The network in evaluation mode, on the CPU. Its ``pruned_structure`` attribute holds
        :func:`read_structure`'s dictionary: input shape, normalisation, kept channels, costs.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a pruned network's file, was truncated or damaged, or does not fit
            ``network``; or if ``network`` or ``trust`` is needed.
    """
    with _open_file(path) as file:
        header = _header(file, path)
        given = _architecture(header, network, path, trust=trust)
        what = header.network if network is None else f"the {type(given).__name__} that was passed"
        module = given if header.stock_attention else free_heads(given)
        keys = file.keys()
        shapes = {key: file.get_slice(key).get_shape() for key in keys}
        types = {key: file.get_slice(key).get_dtype() for key in keys}
        try:
            _check_shapes(header, shapes, types, module)
        except ValueError as error:
            raise ValueError(f"{path} does not fit {what}: {error}") from None
        # Copied, because tensors in a file start anywhere, and kernels add up in another order
        # where they do not start at a multiple of 64 bytes.
        tensors = {key: file.get_tensor(key).clone() for key in keys}
    if _sha256(tensors) != header.tensors:
        raise ValueError(f"{path} was damaged or edited: the checksum of its tensors does not fit")
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{path} holds NaN or infinite values in {key}")
    _install(module, header, tensors)
    module.pruned_structure = header.facts()  # type: ignore[assignment]
    return module.eval()


def _architecture(
    header: Header,
    network: nn.Module | Callable[[], nn.Module] | None,
    path: str | os.PathLike[str],
    *,
    trust: bool,
) -> nn.Module:
    if network is not None:
        if not callable(network):
            raise ValueError(
                "network must be a torch.nn.Module or a function without arguments that returns "
                f"one, got {short(network)}"
            )
        try:
            module = network if isinstance(network, nn.Module) else _without_trace(network)
        except TypeError as error:
            raise ValueError(f"network cannot be called without arguments ({error})") from error
        if not isinstance(module, nn.Module):
            raise ValueError(f"network gave {short(module)}: a torch.nn.Module is needed")
        return unwrap(module)
    if header.network is None:
        raise ValueError(
            f"{path} holds a network that was given as a module, not by name: "
            "pass load_pruned the unpruned architecture as network="
        )
    if is_safe(header.network):
        return build_safely(header.network, header.arguments, str(path))
    if not trust:
        raise ValueError(
            f"{path} names the network {header.network!r}, and importing it would run somebody's "
            f"code: pass load_pruned network=build, a function that "
            "returns the unpruned network, or trust=True if you trust the file"
        )
    return unwrap(_without_trace(partial(build_network, header.network, **header.arguments)))


def _without_trace(build: Callable[[], nn.Module]) -> nn.Module:
    """Call a function that may draw weights, which the file's replace."""
    with own_draws():
        return build()


def _check_shapes(
    header: Header, shapes: Mapping[str, list[int]], types: Mapping[str, str], module: nn.Module
) -> None:
    """Check that tensors are cut from a module's, and layers as the header says.

    Raises:
        ValueError: with the rest of a sentence that begins with the file.
    """
    whole = _emptied_state(header, module)
    if odd := sorted(whole.keys() ^ shapes.keys()):
        raise ValueError(f"it differs in {odd[:3]}")
    modules = dict(module.named_modules())
    for name, cut in header.layers.items():
        if name not in modules or not (_is_layer(modules[name]) or head_count(modules[name])):
            raise ValueError(f"it has no layer {name!r}")
        shape = _shape_of_layer(name, shapes, modules[name], cut)
        sides = [size if size is None else shape[axis] for axis, size in enumerate(cut)]
        outputs = layer_sizes(modules[name])[0]
        rows = cut[0] and cut[0] * weight_rows(modules[name]) // outputs
        if sides != [rows, cut[1]] or not Sizes(modules[name]).fits(cut[0]):
            raise ValueError(f"its {name} is {shape}, which its header says is cut to {cut}")
    firsts = {name: first for first, names in names_of(module).items() for name in names}
    for key, full in whole.items():
        name, _, attribute = key.rpartition(".")
        owner, cut = modules[firsts[name]], header.layers.get(firsts[name], [None, None])
        if head_count(owner) and not _is_layer(owner):
            right = shapes[key] == _with_heads(owner, attribute, list(full.shape), cut[0])
        else:
            if attribute == "weight":
                cut = [cut[axis] for axis in weight_axes(owner)]
            right = _may_be_cut_to(shapes[key], list(full.shape), cut)
        if not right:
            raise ValueError(
                f"its {key} is {shapes[key]}, which is not cut from {list(full.shape)}"
            )
        fits = _FLOATS if full.dtype.is_floating_point else _OTHERS
        found = fits.get(types[key])
        if found is None or (fits is _OTHERS and found != full.dtype):
            raise ValueError(f"its {key} is of type {types[key]}, and {full.dtype} is needed")


def _install(module: nn.Module, header: Header, tensors: Mapping[str, Tensor]) -> None:
    floats = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(floats) == 1:
        module.to(floats.pop())  # buffers that are in no file as well
    shared = _shared_keys(module)
    places = places_of(module)
    for name, (out, into) in header.layers.items():
        layer = module.get_submodule(name)
        if (out == 0 or into == 0) and _is_layer(layer):
            put(_stand_in(layer, None if out != 0 else 0), places[layer])
            continue
        Sizes(layer).set(out, into)
    frozen = set(header.frozen)
    for key, tensor in tensors.items():
        parent, _, attribute = key.rpartition(".")
        owner = module.get_submodule(parent)
        if attribute in owner._parameters:
            trainable = tensor.is_floating_point() and key not in frozen
            owner._parameters[attribute] = nn.Parameter(tensor, requires_grad=trainable)
        else:
            owner._buffers[attribute] = tensor
    for key, first in shared.items():
        if key in tensors and first in tensors and torch.equal(tensors[key], tensors[first]):
            parent, _, attribute = key.rpartition(".")
            owner = module.get_submodule(parent)
            owner._parameters[attribute] = module.get_parameter(first)


def _shared_keys(module: nn.Module) -> dict[str, str]:
    """Map further names of parameters that several modules share to their first names."""
    firsts: dict[nn.Parameter, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        firsts.setdefault(parameter, name)
    named = module.named_parameters(remove_duplicate=False)
    return {name: firsts[p] for name, p in named if firsts[p] != name}


def _emptied_state(header: Header, module: nn.Module) -> dict[str, Tensor]:
    """Return a module's state as it is without the layers that the header says are empty."""
    state, modules = module.state_dict(), dict(module.named_modules())
    emptied = {
        modules[name]: None if out != 0 else 0
        for name, (out, into) in header.layers.items()
        if name in modules
        and ((out == 0 and _is_layer(modules[name])) or (into == 0 and layer_kind(modules[name])))
    }
    for name, layer in module.named_modules(remove_duplicate=False):
        if layer in emptied:
            for key in layer.state_dict():
                del state[f"{name}.{key}"]
            left = _stand_in(layer, emptied[layer]).state_dict()
            state.update({f"{name}.{key}": tensor for key, tensor in left.items()})
    return state


def _stand_in(layer: nn.Module, out: int | None) -> nn.Module:
    """Return what stands in for an uncut layer that loses all outputs (0) or all inputs (None)."""
    return stand_in(layer, layer_sizes(layer)[0] if out is None else out)


def _sizes_left(layer: nn.Module) -> tuple[int, int]:
    """Return the output and input channels of a cut layer, or of what stands in for it."""
    if isinstance(layer, NoChannels):
        return 0, 0
    return (len(layer.bias), 0) if isinstance(layer, Constant) else layer_sizes(layer)


def _shape_of_layer(
    name: str, shapes: Mapping[str, list[int]], layer: nn.Module, cut: list[int | None]
) -> list[int]:
    """Return the shape of a layer's weight, or of a BatchNorm's mean; padded to two dimensions.

    Of a layer without inputs only the bias is left, of one without outputs nothing. A norm without
    tensors has whatever size it was cut to.
    """
    if not _is_layer(layer):
        return [min(cut[0] or 0, heads_of(layer)), 0]
    shape = shapes.get(f"{name}.weight", shapes.get(f"{name}.running_mean"))
    if shape is not None:
        padded = [*shape, 1][: max(2, len(shape))]
        return [padded[axis] for axis in weight_axes(layer)] + padded[2:]
    out = cut[0] or 0
    if out and not layer_kind(layer) and not layer.state_dict():
        return [min(out, layer_sizes(layer)[0]), 0]
    return [*shapes.get(f"{name}.bias", [0]), 0]


def _is_layer(module: nn.Module) -> bool:
    return layer_kind(module) is not None or passes_channels(module)


def _with_heads(attention: nn.Module, key: str, whole: list[int], heads: int | None) -> list[int]:
    """Return the shape of an attention module's own tensor with so many heads; None: all."""
    axis = head_axes(attention).get(key)
    if heads is None or axis is None:
        return whole
    return [*whole[:axis], heads, *whole[axis + 1 :]]


def _may_be_cut_to(shape: list[int], whole: list[int], sizes: list[int | None]) -> bool:
    """Whether a tensor has the shape of ``whole`` but for the dimensions that were cut."""
    if len(shape) != len(whole):
        return False
    cut = [size is not None for size in sizes]
    return all(
        1 <= size <= full if axis < len(cut) and cut[axis] else size == full
        for axis, (size, full) in enumerate(zip(shape, whole, strict=True))
    )


def _sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values as hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _open_file(path: str | os.PathLike[str]) -> Any:
    """Open a safetensors file whose header is not too long.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no such file, or was cut short.
    """
    path = as_path(path, "a pruned network's file")
    if not path.is_file():
        raise FileNotFoundError(f"no pruned network at {path}")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    try:
        if length > LARGEST_HEADER:
            raise SafetensorError(f"its header is longer than {LARGEST_HEADER:,} bytes")
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise _foreign(path, error) from error


def _header(file: Any, path: str | os.PathLike[str]) -> Header:
    text = (file.metadata() or {}).get(_KEY)
    if text is None:
        raise _foreign(path, "it has no structure")
    return parse_sealed(Header, text, f"{path} is not a pruned network's file of this version")


def _foreign(path: str | os.PathLike[str], reason: object) -> ValueError:
    return ValueError(f"{path} is not a pruned network's file, or was cut short ({reason})")
