"""While calls are timed, freed memory is kept, and none of them pays for new pages."""

import sys

import pytest
import torch

from lfgcl_env.latency.timing import take_turns

resource = pytest.importorskip("resource")

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="other systems have other allocators"
)

MIB = 2**20


def faults_of_a_call(size):
    """Count the pages that the system hands out for a tensor that is made, filled and dropped."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(size, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.fixture
def before():
    """Pages that such a call gets where nothing is timed."""
    pages = min(faults_of_a_call(64 * MIB) for _ in range(3))
    if pages < 5000:
        pytest.skip("this system's allocator, or its pages, make that cheap already")
    return pages


def test_large_tensors_cost_no_new_pages_while_calls_are_timed(before):
    counted = []
    sizes = iter(range(64, 0, -1))  # with room for what the interpreter puts into the gap

    def call():
        counted.append(faults_of_a_call(next(sizes) * MIB))

    take_turns([call], 0.0, rounds=(8, 8))
    assert len(counted) == 9
    assert max(counted[1:]) < before / 10  # the first round takes the memory
    assert faults_of_a_call(64 * MIB) > before / 2  # given back


def test_memory_is_given_back_if_a_call_fails(before):
    with pytest.raises(ZeroDivisionError):
        take_turns([lambda: 1 // 0], 0.0)
    assert faults_of_a_call(64 * MIB) >= before / 2
