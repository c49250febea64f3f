"""Reading state dicts from files, without running code in them, and loading them."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SHOWN = 3  # names of an error's list that are written out


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict from a ``.safetensors`` file or one written by ``torch.save``.

    A wrapper ``{"state_dict": ...}`` and the prefix ``module.`` of ``nn.DataParallel`` are
    removed. Files are read with ``weights_only``: nothing in them is executed.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or holds something else; the message names it.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no weights file {str(path)!r}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(
            f"{str(path)!r} is damaged, or is no state dict as torch.save(network.state_dict(), "
            "path) writes it (it is read with weights_only=True)"
        ) from error
    return unwrap(content, str(path))


def unwrap(content: Any, source: str) -> dict[str, Tensor]:
    """Take a state dict out of ``{"state_dict": ...}`` and drop the prefix ``module.``.

    Args:
        content: what a checkpoint file held.
        source: what to call it in errors.

    Raises:
        ValueError: if ``content`` is no mapping from names to tensors.
    """
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    ):
        raise ValueError(
            f"{source!r} holds no state dict: a mapping from names to tensors is needed, "
            "bare or under the key 'state_dict'"
        )
    if all(key.startswith("module.") for key in content):
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return dict(content)


def fit_state_dict(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load ``state`` into ``network``; nothing is changed if it does not fit.

    ``num_batches_tracked`` may be missing: checkpoints from before PyTorch 0.4.1 lack it, and in
    eval mode it has no effect.

    Args:
        network: what to load into, changed in place.
        state: tensors by name.
        source: what to call ``state`` in errors.

    Raises:
        ValueError: if names, shapes or kinds of numbers differ, or values are not finite; the
            message lists the first few.
    """
    own = network.state_dict()
    lacking = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    foreign = [key for key in state if key not in own]
    shapes = [
        f"{key} {tuple(value.shape)} instead of {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]
    kinds = [
        f"{key} of {_kind(value)} instead of {_kind(own[key])}"
        for key, value in state.items()
        if key in own and value.shape == own[key].shape and _kind(value) != _kind(own[key])
    ]
    found = (("lacks", lacking), ("has unknown", foreign), ("has", shapes), ("has", kinds))
    problems = [f"{what} {_first(names)}" for what, names in found if names]
    if problems:
        raise ValueError(
            f"{source!r} does not fit {type(network).__name__}: it {'; it '.join(problems)}"
        )
    broken = [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise ValueError(f"{source!r} has NaN or infinite values in {_first(broken)}")
    network.load_state_dict(state, strict=False)


def _kind(value: Tensor) -> str:
    """Name what a tensor holds; only floating-point weights can be loaded as such."""
    if value.layout != torch.strided or value.is_quantized or value.device.type == "meta":
        return f"unusual storage ({value.layout}, {value.dtype}, {value.device.type})"
    if value.is_complex():
        return "complex numbers"
    return "floating-point numbers" if value.is_floating_point() else "whole numbers"


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values as hexadecimal digits.

    ``num_batches_tracked`` does not count: it has no effect in eval mode, and may be missing.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        if not name.endswith("num_batches_tracked"):
            values = state[name].detach().cpu().contiguous()
            digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
            digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        content = load_file(path)
    except OSError:
        raise
    except Exception as error:  # SafetensorError, and others for unusual types
        raise ValueError(f"{str(path)!r} is damaged, or is no safetensors file") from error
    return unwrap(content, str(path))


def _first(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
