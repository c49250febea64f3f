"""Pruned networks on disk: one safetensors file, with the structure as JSON in its header.

Nothing in the file is executed when it is read: tensors are tensors, and the structure is text.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lfgcl_env.edge.files import write_beside
from lfgcl_env.networks import Baseline, build_network
from lfgcl_env.pruning.structure.candidate import is_depthwise, replace_tensor, resize
from lfgcl_env.pruning.structure.slice_plan import SlicePlan

FORMAT = 1
_KEY = "lfgcl_env"


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
    path = Path(path)
    tensors = network.state_dict()
    layers = {}
    for name, slices in plan.layers.items():
        weight = tensors.get(f"{name}.weight")
        size = weight if weight is not None else tensors[f"{name}.running_mean"]
        layers[name] = [
            int(size.shape[0]) if slices.out else None,
            int(size.shape[1]) if slices.into else None,
        ]
    normalization = baseline.normalization
    structure = {
        "format": FORMAT,
        "network": baseline.name,
        # Arguments that JSON cannot hold come without a name.
        "arguments": baseline.arguments if baseline.name is not None else {},
        "weights": baseline.weights,
        "input_shape": list(baseline.input_shape),
        "num_classes": baseline.num_classes,
        "normalization": normalization and [list(normalization.mean), list(normalization.std)],
        "layers": layers,
        **facts,
    }
    # As bytes, because safetensors' own files are readable by their owner alone.
    content = save(
        {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()},
        metadata={_KEY: json.dumps(structure)},
    )
    return write_beside(path, lambda partial: partial.write_bytes(content))


def read_structure(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON structure in a pruned network's file: architecture, sizes, strategy, costs.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a pruned network's file, or was truncated.
    """
    return _read(path)[0]


def load_pruned(
    path: str | os.PathLike[str], network: nn.Module | Callable[[], nn.Module] | None = None
) -> nn.Module:
    """Rebuild a pruned network from its file; its outputs equal the saved one's exactly.

    Args:
        path: a file that ``lfgcl prune`` or :meth:`PruningProblem.save` wrote.
        network: the unpruned architecture, only for networks that were given as a module instead
            of by name; it is changed and returned.

    Returns:
        The network in evaluation mode, on the CPU. Its ``pruned_structure`` attribute holds
        :func:`read_structure`'s dictionary: input shape, normalisation, kept channels, costs.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a pruned network's file, was truncated, or does not fit
            ``network``; or if ``network`` is needed and missing.
    """
    structure, tensors = _read(path)
    if network is not None:
        module = network if isinstance(network, nn.Module) else network()
    elif structure["network"] is None:
        raise ValueError(
            f"{path} holds a network that was given as a module, not by name: "
            "pass load_pruned the unpruned architecture as network="
        )
    else:
        module = build_network(structure["network"], **structure["arguments"])
    what = structure["network"] or type(module).__name__
    expected = set(module.state_dict())
    if expected != set(tensors):
        odd = sorted(expected ^ set(tensors))
        raise ValueError(f"{path} does not fit {what}: it differs in {odd[:3]}")
    for key, whole in module.state_dict().items():
        if not _may_be_cut_to(tensors[key], whole, structure["layers"].get(key.rpartition(".")[0])):
            raise ValueError(
                f"{path} does not fit {what}: its {key} is {list(tensors[key].shape)}, "
                f"which is not cut from {list(whole.shape)}"
            )
    for name, (out, into) in structure["layers"].items():
        layer = module.get_submodule(name)
        resize(layer, out, into, depthwise=is_depthwise(layer))
    for key, tensor in tensors.items():
        parent, _, attribute = key.rpartition(".")
        owner = module.get_submodule(parent)
        trainable = attribute in owner._parameters
        replace_tensor(owner, attribute, tensor)
        if trainable:
            owner._parameters[attribute].requires_grad_(True)  # type: ignore[union-attr]
    module.pruned_structure = structure  # type: ignore[assignment]
    return module.eval()


def _may_be_cut_to(
    tensor: Tensor, whole: Tensor, sizes: tuple[int | None, int | None] | None
) -> bool:
    """Whether a tensor has the shape of ``whole`` but for the dimensions that were cut."""
    if tensor.dim() != whole.dim():
        return False
    cut = [size is not None for size in sizes or ()]
    return all(
        size <= full if axis < len(cut) and cut[axis] else size == full
        for axis, (size, full) in enumerate(zip(tensor.shape, whole.shape, strict=True))
    )


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no pruned network at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            structure = json.loads((file.metadata() or {})[_KEY])
            # Copied, because tensors in a file start anywhere, and kernels add up in another order
            # where they do not start at a multiple of 64 bytes.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is not a pruned network's file, or was cut short ({error})"
        ) from error
    found = structure.get("format") if isinstance(structure, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path} has format {found!r}; this version reads {FORMAT}")
    return structure, tensors
