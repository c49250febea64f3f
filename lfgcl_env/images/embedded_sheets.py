"""Calibration images in the package: synthetic ones, made from its embedded weights."""

from pathlib import Path

from lfgcl_env.networks.embedded_weights import names_of_files, stem_of_files

FOLDER = Path(__file__).parent / "sheets"


def embedded_sheet(network: str | None) -> Path:
    """Return the package's image sheet for a network.

    Args:
        network: its name; None for one without a name.

    Raises:
        ValueError: if it has none; the message names those that have.
    """
    path = FOLDER / f"{stem_of_files(network or '')}.png"
    if not path.is_file():
        sheets = names_of_files(FOLDER, ".png")
        raise ValueError(
            f"the package has no images for {network or 'a network without a name'} (it has some "
            f"for: {', '.join(sheets) or 'none'}): give images='synthetic', which are made from "
            "the network alone, a data set, or a folder"
        )
    return path
