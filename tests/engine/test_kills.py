"""A search whose driver and workers are killed at random moments loses nothing."""

import pytest
from kills import disturb


@pytest.mark.slow
def test_a_command_that_is_killed_and_resumed_ends_as_an_undisturbed_one():
    found = disturb({"kills": 3, "evaluations": 20, "seed": 0})
    assert found["drivers"] + found["workers"] == 3
    assert found["lost"] == 0
    assert found["same"]
