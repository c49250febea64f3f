"""What other libraries say, kept back by one thread at a time.

Filters of warnings, logging and the standard streams are the process's. Of two threads that each
change them for a while, the one that ends last would put back what the other had set, for good.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO

from lfgcl_env.edge.fork_lock import ForkLock

one_at_a_time = ForkLock()
"""Is held by whoever changes them."""


@contextmanager
def without_warnings(kind: type[Warning] = Warning) -> Iterator[None]:
    """Show no warnings of a kind inside the block."""
    with one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore", kind)
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """Show no warnings, logs or output inside the block; errors are raised all the same."""
    with without_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        before = logging.root.manager.disable
        logging.disable(max(before, logging.ERROR))
        try:
            yield
        finally:
            logging.disable(before)
