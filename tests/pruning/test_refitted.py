"""What a network was refitted to when it was scored, kept for handing it over."""

import pickle

import pytest
import torch
from networks_for_tests import awake_baseline, awaken, images, plain, simple_problem

from lfgcl_env.pruning.repair import refitted, tensor_cache, walk
from lfgcl_env.pruning.repair.walk import Walk

KEEP, OTHER = [4, 3], [3, 4]


@pytest.fixture
def steps(monkeypatch):
    """The steps of refits, in a list that grows."""
    step, taken = Walk.step, []

    def counted(self, index, targets):
        taken.append(index)
        step(self, index, targets)

    monkeypatch.setattr(Walk, "step", counted)
    return taken


def made():
    return simple_problem(awaken(plain()), images(16), repair="sequential")


def size_of(keep):
    problem = made()
    problem.evaluate(keep)
    return problem._repair._recent.size


def states_of(*networks):
    return zip(*(network.state_dict().items() for network in networks), strict=True)


def test_a_network_that_was_scored_is_handed_over_without_another_refit(steps):
    problem = made()
    problem.evaluate(KEEP)
    problem.evaluate(OTHER)
    scored = len(steps)
    found = problem.compress(KEEP)
    assert len(steps) == scored
    for (name, mine), (_, own) in states_of(found, made().compress(KEEP)):
        assert torch.equal(mine, own), name


def test_blocks_that_are_gone_are_handed_over_so_too(steps):
    baseline = awake_baseline("resnet20")
    problem, other = (
        simple_problem(baseline, images(8, 32), repair="sequential", min_channels=0)
        for _ in range(2)
    )
    keep = problem.channels // 2
    keep[[1, 4]] = 0
    problem.evaluate(keep)
    problem.evaluate(problem.channels)  # with these blocks
    scored = len(steps)
    found = problem.compress(keep)
    assert len(steps) == scored
    for (name, mine), (_, own) in states_of(found, other.compress(keep)):
        assert torch.equal(mine, own), name


def test_handing_over_leaves_scores_alone():
    problem = made()
    before = problem.evaluate(KEEP)
    for _ in range(2):
        problem.compress(KEEP)
        assert problem.measure(OTHER) == made().evaluate(OTHER)
        assert problem.measure(KEEP) == before


def test_the_oldest_are_refitted_again(monkeypatch, steps):
    size = size_of(KEEP)
    assert size > 0
    monkeypatch.setattr(tensor_cache, "CACHE_BYTES", 2 * size - 1)  # too few for two strategies
    problem = made()
    problem.evaluate(KEEP)
    problem.evaluate(OTHER)
    scored = len(steps)
    problem.compress(OTHER)
    assert len(steps) == scored
    problem.compress(KEEP)
    assert len(steps) > scored


def test_a_strategy_scored_again_counts_once():
    problem = made()
    problem.evaluate(KEEP)
    size = problem._repair._recent.size
    problem.measure(KEEP)
    assert problem._repair._recent.size == size


def test_workers_are_not_sent_what_was_refitted(steps):
    problem = made()
    score = problem.evaluate(KEEP)
    sent = pickle.loads(pickle.dumps(problem))
    assert sent._repair._recent.find(problem.kept_channels(KEEP)) is None
    for keep in (OTHER, KEEP):  # and they keep the last one alone
        sent.measure(keep)
        assert sent._repair._recent.size == size_of(keep)
    assert sent.measure(KEEP) == score


def test_an_interrupted_replay_leaves_no_trace(monkeypatch):
    problem = made()
    score = problem.evaluate(KEEP)
    put = refitted.put

    def stop(tensors):
        first, *_ = tensors
        put([first])
        monkeypatch.setattr(walk, "put", put)
        raise KeyboardInterrupt

    monkeypatch.setattr(walk, "put", stop)
    with pytest.raises(KeyboardInterrupt):
        problem.compress(KEEP)
    assert problem.measure(KEEP) == score
