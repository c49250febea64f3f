"""Where data sets are kept."""

import os
from pathlib import Path


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of the data sets.

    Args:
        root: the folder; by default the environment variable ``LFGCL_DATA``, and without that
            ``~/.cache/lfgcl/data``. It need not exist.

    >>> data_root("/data").as_posix()
    '/data'
    """
    if root is None:
        root = os.environ.get("LFGCL_DATA") or "~/.cache/lfgcl/data"
    return Path(os.path.expanduser(root))  # unlike Path.expanduser it accepts unknown users
