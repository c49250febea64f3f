"""Where a result comes from: command, commit, versions, machine and time."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from lfgcl_env.latency.machine import processor

PACKAGES = (
    "lfgcl-env", "torch", "torchvision", "torch-pruning", "gymnasium", "stable-baselines3", "numpy"
)  # fmt: skip
_CHECKOUT = Path(__file__).parents[2]
_CODE = ("lfgcl_env", "agents", "baselines", "benchmarks/*.py")


def provenance() -> dict[str, Any]:
    """Return what is needed to make a result again, and to judge its times.

    ``commit`` is there only where the package runs from a checkout, and ends with ``+changes`` if
    code differs from it.
    """
    found: dict[str, Any] = {
        "command": shlex.join([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
    commit = _commit()
    return found | ({"commit": commit} if commit else {})


def versions() -> dict[str, str]:
    """Return versions of Python and of the packages that decide results, without missing ones."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if "lfgcl-env" not in found:
        from lfgcl_env import __version__

        found["lfgcl-env"] = __version__
    return found


def _commit() -> str | None:
    if not (_CHECKOUT / ".git").exists():
        return None
    commit = _git("rev-parse", "--short", "HEAD")
    changed = commit and _git("status", "--porcelain", "--untracked-files=no", "--", *_CODE)
    return f"{commit}+changes" if changed else commit


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=_CHECKOUT, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
