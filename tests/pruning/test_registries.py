"""Registries: one decorator adds a criterion, repair, similarity or budget metric to a problem."""

import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from networks_for_tests import awaken, images, plain, simple_problem

from lfgcl_env.config import ProblemConfig, defaults
from lfgcl_env.edge.discovery import import_modules
from lfgcl_env.latency.runtimes import RUNTIMES
from lfgcl_env.pruning import CHOICES, CRITERIA, METRICS, REPAIRS, SCOPES, SIMILARITIES
from lfgcl_env.pruning.criteria.criterion import criterion
from lfgcl_env.pruning.repair.interface import Repair, repair
from lfgcl_env.pruning.score.similarities import similarity
from lfgcl_env.pruning.structure.cost import TIMED, metric


@pytest.fixture(autouse=True)
def _registries_as_before():
    before = {name: dict(choices) for name, choices in CHOICES.items()}
    yield
    for name, choices in CHOICES.items():
        choices.clear()
        choices.update(before[name])


def small(**arguments):
    return simple_problem(awaken(plain()), images(8), **arguments)


def test_choices_are_the_registries_of_all_arguments_that_are_names():
    assert CHOICES == {
        "criterion": CRITERIA,
        "repair": REPAIRS,
        "similarity": SIMILARITIES,
        "scope": SCOPES,
        "budget_metric": METRICS,
        "latency_runtime": RUNTIMES,
    }
    known = {name: defaults(ProblemConfig)[name] for name in CHOICES}
    assert known.pop("similarity") is None  # it follows from the repair
    assert {kind.similarity for kind in REPAIRS.values()} <= set(SIMILARITIES)
    assert all(default in CHOICES[name] for name, default in known.items())
    assert set(REPAIRS) == {"none", "batchnorm", "least_squares", "sequential"}
    assert set(METRICS) == {"macs", "params", "latency"}


def test_a_new_criterion_orders_channels():
    @criterion("last_first")
    def last_first(context, group):
        return np.arange(group.channels, dtype=np.float64)

    kept = small(criterion="last_first").kept_channels([3, 2])
    assert [channels.tolist() for channels in kept] == [[5, 6, 7], [4, 5]]


@torch.no_grad()
def test_a_new_similarity_is_the_score():
    @similarity("bounded", worst=-7.0, of_outputs=True)
    def bounded(baseline, pruned):
        assert baseline.shape == pruned.shape == (8, 5)
        return 1.0 - float((baseline - pruned).abs().clamp(max=1).mean())

    problem = small(similarity="bounded")
    whole, cut = (problem.baseline.network(images(8)), problem.compress([4, 3])(images(8)))
    expected = 1.0 - float((whole - cut).abs().clamp(max=1).mean())
    assert problem.evaluate([4, 3]).similarity == pytest.approx(expected, abs=1e-5)
    features = [torch.full((8, 5), float("nan"))]
    assert problem.scorer.compare(features) == -7.0


def test_a_new_repair_is_what_candidates_and_compressed_networks_have():
    @repair("biased")
    class Biased(Repair):
        """Adds one to all logits of the candidate."""

        def prepare(self, network, candidate, images, moments):
            candidate.network[-1].fc.bias.data += 1

    plainly, biased = small(repair="none"), small(repair="biased")
    outputs = [problem.compress([4, 3])(images(8)) for problem in (plainly, biased)]
    assert torch.allclose(outputs[0] + 1, outputs[1], atol=1e-5)
    named = small(repair="biased", features=["output"], similarity="mse")
    assert named.evaluate([8, 6]).similarity < 0.99


def test_a_new_budget_metric_is_projected_onto():
    @metric("channels")
    def channels(measured):
        return lambda keep: keep.sum(axis=-1)

    problem = small(budget_metric="channels", budget=0.5)
    assert problem.lowest_budget == pytest.approx(2 / 14)
    keep = problem.project([0.2, 0.7])
    assert keep.sum() == 7
    assert problem.meets(keep)
    assert not problem.meets(keep + np.array([1, 0]))
    assert problem.cost(keep) == small().cost(keep)


def test_a_new_file_in_a_folder_is_found(tmp_path, monkeypatch):
    package = tmp_path / "found_by_folder"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in ("b_second", "a_first"):
        (package / f"{name}.py").write_text(f"import sys\nsys.found_here.append({name!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "found_here", [], raising=False)
    __import__("found_by_folder")
    import_modules("found_by_folder")
    assert sys.found_here == ["a_first", "b_second"]


def test_metrics_grow_with_every_channel():
    problem = small()
    for name in set(METRICS) - TIMED:
        costs = [problem.network.cost_model.many(np.array([k, 3]), name) for k in range(1, 9)]
        assert all(low < high for low, high in pairwise(costs))
