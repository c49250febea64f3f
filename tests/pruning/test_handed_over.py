"""The network that is handed over is the best of those that a run has, by the run's own score."""

import numpy as np
import pytest
import torch
from networks_for_tests import awaken, images, plain

from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.repair.profiles import SequentialOptions

FEW = SequentialOptions(rows=4096, gauss_newton=0)


def uniform(problem):
    return problem.project(np.full(len(problem.groups), 0.5))


def test_finish_returns_what_scores_highest_and_says_so(caplog):
    baseline = load_baseline("resnet20", weights="random")
    awaken(baseline.network)
    problem = PruningProblem(baseline, images(32), images(16, seed=2), budget=0.6)
    keep = uniform(problem)
    network, evaluation = problem.finish(keep, torch.zeros(16, 3, 32, 32), FEW)
    assert "a repair made the network worse" in caplog.text
    assert evaluation == problem.evaluate(keep)
    assert problem.score_network(network, keep) == pytest.approx(evaluation.similarity)


def near(wanted):
    """A score of networks that is highest, 0, for one with these parameters."""

    def score(network, _images):
        pairs = zip(network.parameters(), wanted.parameters(), strict=True)
        return -float(sum((mine - its).abs().sum() for mine, its in pairs))

    return score


@pytest.mark.parametrize("wanted", ["thorough", "scored", "cut"])
@pytest.mark.parametrize("repair", ["least_squares", "sequential"])
def test_finish_goes_by_a_score_of_ones_own(wanted, repair, caplog):
    problem = PruningProblem(
        awaken(plain()), images(16), images(16, seed=2), budget=0.6, repair=repair
    )
    keep = uniform(problem)
    (thorough,) = problem.repair_all([keep], images(32, seed=1), FEW)
    networks = {
        "thorough": thorough,
        "scored": problem.compress(keep),
        "cut": problem.cut(keep),
    }
    score = near(networks[wanted])
    network, evaluation = problem.finish(keep, images(32, seed=1), FEW, score=score)
    assert (
        score(network, None)
        == 0
        > max(score(other, None) for name, other in networks.items() if name != wanted)
    )
    assert ("a repair made the network worse (score -" in caplog.text) == (wanted != "thorough")
    assert evaluation.similarity == problem.score_network(networks[wanted], keep)
    assert evaluation.keep == tuple(keep)
    kept = problem.keep_better(thorough, keep, lambda one: score(one, None))
    assert (kept.delivery, kept.evaluation) == (wanted, evaluation)


@pytest.mark.parametrize("repair", ["least_squares", "sequential"])
def test_a_repair_that_is_worse_than_the_scored_one_is_not_used(repair, caplog):
    problem = PruningProblem(
        awaken(plain()), images(64), images(64, seed=2), budget=0.6, repair=repair
    )
    keep = uniform(problem)
    known, cut = problem.evaluate(keep), problem.score_network(problem.cut(keep), keep)
    (harmed,) = problem.repair_all([keep], images(64, seed=1), FEW)
    first = next(harmed.parameters())
    for _ in range(100):
        if cut < problem.score_network(harmed, keep) < known.similarity:
            break
        with torch.no_grad():
            first.mul_(1.02)
    assert cut < problem.score_network(harmed, keep) < known.similarity
    kept = problem.keep_better(harmed, keep)
    assert (kept.delivery, kept.evaluation) == ("scored", known)
    assert problem.score_network(kept.network, keep) == pytest.approx(known.similarity, abs=1e-5)
    assert "a repair made the network worse" in caplog.text


def test_a_score_of_ones_own_sees_the_images_that_networks_are_scored_on(monkeypatch):
    judged, seen = images(5, seed=2), []
    problem = PruningProblem(awaken(plain()), images(16), judged, budget=0.6)

    def score(_network, given):
        seen.append(given)
        return 1

    problem.finish(uniform(problem), images(16, seed=1), FEW, score=score)
    assert len(seen) == 3  # of the network merely cut, before the repair, and of both repaired
    assert all(torch.equal(one, judged) for one in seen)
    monkeypatch.setattr(problem, "repair_all", None)
    with pytest.raises(ValueError, match="must return a finite number, got None"):
        problem.finish(uniform(problem), images(16, seed=1), FEW, score=lambda *_: None)
    scores = iter([1.0, None])
    with pytest.raises(ValueError, match="must return a finite number, got None"):
        problem.finish_all(
            [uniform(problem)] * 2, images(16, seed=1), FEW, score=lambda *_: next(scores)
        )
