"""Writing trained weights in half precision, with a model card, as the package ships them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from lfgcl_env.edge.files import write_text
from lfgcl_env.images import load_test_set, top1
from lfgcl_env.networks import PUBLISHED, build_network
from lfgcl_env.networks.state_dicts import fit_state_dict, read_state_dict, state_sha256
from lfgcl_env.runs.provenance import provenance
from training.recipe import CLASSES, Recipe


def export(
    weights: dict[str, Tensor], recipe: Recipe, folder: Path, facts: dict[str, Any]
) -> dict[str, Any]:
    """Write ``NAME_DATA.safetensors`` and its card ``NAME_DATA.json``, tested on 10,000 images.

    Args:
        weights: of the trained network.
        recipe: how they were trained.
        folder: where the two files go.
        facts: about the training, for the card.

    Returns:
        The card. Its accuracy is that of the half-precision weights, read back from the file.

    Raises:
        ValueError: if a weight is out of half precision's range.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{recipe.network}_{recipe.data.lower()}.safetensors"
    partial = path.with_name(f"partial_{path.name}")  # the reader goes by the suffix
    halves = {
        name: value.half().contiguous()
        for name, value in weights.items()
        if not name.endswith("num_batches_tracked")
    }
    partial.write_bytes(save(halves))
    arguments: dict[str, Any] = {"num_classes": CLASSES[recipe.data]}
    if recipe.network.startswith("resnet"):
        arguments["shortcut"] = "A"
    network = build_network(recipe.network, **arguments).eval()
    state = {name: tensor.float() for name, tensor in read_state_dict(partial).items()}
    fit_state_dict(network, state, str(path))
    normalization = PUBLISHED[recipe.network].normalization
    test = load_test_set(recipe.data, normalization=normalization)
    card = {
        "network": recipe.network,
        "arguments": arguments,
        "data": recipe.data,
        "normalization": asdict(normalization),
        "top1": round(top1(network, test), 2),
        "tested_on": f"{len(test.labels)} test images, which nothing else saw",
        "format": "half precision, read as float32",
        "weights_sha256": state_sha256(network.state_dict()),
        "parameters": sum(p.numel() for p in network.parameters()),
        "licence": "MIT",
        "recipe": asdict(recipe),
        "teacher": PUBLISHED[recipe.teacher].url if recipe.teacher else None,
        **facts,
        "provenance": provenance(),
    }
    write_text(path.with_suffix(".json"), json.dumps(card, indent=1) + "\n")
    partial.replace(path)
    return card


def default_precision(device: torch.device) -> str:
    """Return ``bf16`` where the device supports it natively, else ``fp32``."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "fp32"
    return "bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32"
