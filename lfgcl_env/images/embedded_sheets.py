"""Calibration images in the package: synthetic ones, made from its embedded weights."""

from pathlib import Path

FOLDER = Path(__file__).parent / "sheets"
_DATA = "cifar10"


def embedded_sheet(network: str | None) -> Path:
    """Return the package's image sheet for a network.

    Args:
        network: its name; None for one without a name.

    Raises:
        ValueError: if it has none; the message names those that have.
    """
    path = FOLDER / f"{network}_{_DATA}.png"
    if network is None or not path.is_file():
        sheets = sorted(p.stem.removesuffix(f"_{_DATA}") for p in FOLDER.glob(f"*_{_DATA}.png"))
        raise ValueError(
            f"the package has no images for {network or 'a network without a name'} (it has some "
            f"for: {', '.join(sheets) or 'none'}): give images='synthetic', which are made from "
            "the network alone, a data set, or a folder"
        )
    return path
