"""What ``lfgcl export --int8`` prints: an int8 model beside its float model."""

import logging
from collections.abc import Sequence

from lfgcl_env.cli.text import columns
from lfgcl_env.export import Comparison

GOOD = 90.0
"""Agreement [%] below which the command warns."""

_log = logging.getLogger(__name__)


def print_int8(
    found: Comparison, calibrated: int, calibration: str, top1s: Sequence[float] | None
) -> None:
    """Print a table of float and int8, and warn where they agree rarely.

    Args:
        found: how they compare.
        calibrated: images that int8 was calibrated on.
        calibration: how.
        top1s: of float and of int8 [%]; None where they were not tested.
    """
    whole, small = found.bytes
    rows = [
        ["", "float", "int8", ""],
        ["bytes", f"{whole:,}", f"{small:,}", f"{small / whole:.1%}"],
    ]
    for size, (slow, fast) in found.milliseconds.items():
        name = f"{size} image{'s' * (size > 1)} [ms]"
        rows.append([name, f"{slow:.2f}", f"{fast:.2f}", f"{fast / slow:.1%}"])
    if top1s:
        before, after = top1s
        rows.append(["top-1", f"{before:.2f} %", f"{after:.2f} %", f"{after - before:+.2f}"])
    if found.agreement is not None:
        rows.append(["same largest output", "", f"{found.agreement:.2f} %", ""])
    rows.append(["error of outputs", "", f"{found.error:.1%}", ""])
    print(
        f"calibrated on {calibrated:,} images ({calibration}) and compared on {found.images:,} "
        "others:"
    )
    for line in columns(rows, ["left", "right", "right", "right"]):
        print(line)
    if found.agreement is not None and found.agreement < GOOD:
        _log.warning(
            "int8 changes the largest output of %.1f %% of the images: keep the float model, or "
            "give other --images",
            100 - found.agreement,
        )
