"""``lfgcl report``: a run as one HTML file to look at."""

from typing import Any

from lfgcl_env.cli.outcome import Outcome
from lfgcl_env.page import write_page


def report_run(arguments: dict[str, Any]) -> Outcome:
    """Write the page of a run and print where it is.

    Args:
        arguments: ``run`` and ``out``.

    Raises:
        FileNotFoundError: if no run was begun there.
        ValueError: if a file of the run is damaged.
        OSError: if the page cannot be written.
    """
    path = write_page(arguments["run"], arguments["out"])
    print(f"{path}  {path.stat().st_size:,} bytes, for any browser")
    return {"file": str(path), "bytes": path.stat().st_size}
