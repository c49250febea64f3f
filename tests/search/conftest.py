"""What tests of searches need: worker processes that the tests of a file share."""

import pytest
from searches_for_tests import WORKERS

from lfgcl_env.engine import Processes


@pytest.fixture(scope="module")
def workers():
    with Processes(WORKERS) as executor:
        yield executor
