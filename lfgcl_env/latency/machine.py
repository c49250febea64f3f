"""What a measured time belongs to: processor, devices and versions."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_PACKAGES = {"pytorch": ("torch",), "cuda": ("torch",), "onnxruntime": ("onnxruntime",)}


def machine(runtime: str) -> dict[str, str]:
    """Return what decides times in a runtime, besides threads and what is run."""
    found = {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "system": platform.system(),
    }
    if runtime == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    for package in _PACKAGES.get(runtime, ()):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def processor() -> str:
    """Return the processor's name, as far as the operating system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor()
