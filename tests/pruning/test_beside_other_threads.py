"""Threads that prepare and score networks at once get what each alone would, and leave no trace."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from networks_for_tests import awaken, images
from torch import fx, nn

from lfgcl_env import PruningProblem
from lfgcl_env.networks import Baseline, load_baseline
from lfgcl_env.networks.one_thread_tracer import OneThreadTracer
from lfgcl_env.pruning import PrunableNetwork


def settings():
    return nn.Module.__call__, nn.Module.__getattr__, list(warnings.filters)


@pytest.fixture
def threads(frequent_switches):
    """Threads that often take turns, and leave the process as it was."""
    before = settings()
    with ThreadPoolExecutor(4) as executor:
        yield executor
    assert settings() == before


def network() -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for width in (3, 8, 8, 8):
        layers += [nn.Conv2d(width, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    return awaken(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)))


def prepare(repair: str) -> PruningProblem:
    return PruningProblem(NETWORK, images(8, 8), repair=repair)


NETWORK = network()


@pytest.mark.parametrize("repair", ["least_squares", "sequential"])
def test_problems_can_be_prepared_and_scored_at_once(threads, repair):
    def scored(_: int = 0) -> float:
        problem = prepare(repair)
        return problem.evaluate(problem.channels // 2).similarity

    alone = scored()
    assert list(threads.map(scored, range(12))) == [alone] * 12


@pytest.mark.parametrize("repair", ["batchnorm", "sequential"])
def test_threads_score_a_network_of_torch_fx(threads, repair):
    problem = PruningProblem(fx.symbolic_trace(NETWORK), images(8, 8), repair=repair)
    draw = np.random.default_rng(0)
    strategies = [draw.integers(1, problem.channels + 1) for _ in range(16)]
    wanted = [problem.measure(strategy).similarity for strategy in strategies]
    found = problem.evaluate_many(strategies, threads)
    assert [evaluation.similarity for evaluation in found] == wanted


@pytest.mark.parametrize("repair", ["none", "least_squares", "sequential"])
def test_threads_that_share_a_problem_wait_for_each_other(threads, repair):
    draw = np.random.default_rng(0)

    def used(problem: PruningProblem, strategy: np.ndarray) -> list[float]:
        smaller = problem.compress(strategy)
        return [
            problem.evaluate(strategy).similarity,
            problem.score_network(smaller, strategy),
            float(problem.screen([strategy])[0]),
            float(problem.features(strategy)[0].sum()),
        ]

    problem = prepare(repair)
    strategies = [draw.integers(1, problem.channels + 1) for _ in range(16)]
    wanted = [used(problem, strategy) for strategy in strategies]
    found = threads.map(used, [prepare(repair)] * 16, strategies)
    assert list(found) == wanted


def test_groups_and_costs_of_one_baseline_are_found_at_once(threads):
    def found(baseline: Baseline) -> tuple[list[tuple[str, int]], int]:
        pruned = PrunableNetwork(baseline)
        return [(g.name, g.channels) for g in pruned.groups], pruned.baseline_cost.macs

    baseline = load_baseline(NETWORK, input_shape=(3, 8, 8))
    alone = found(baseline)
    assert list(threads.map(found, [baseline] * 12)) == [alone] * 12


def test_a_network_can_be_changed_once_a_problem_is_made_of_it():
    changed = network()
    problem = PruningProblem(changed, images(8, 8), repair="sequential")
    wanted = prepare("sequential").evaluate(problem.channels // 2).similarity
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.zero_()
    assert problem.evaluate(problem.channels // 2).similarity == wanted


def test_a_network_can_be_changed_once_its_groups_are_found():
    changed = load_baseline(network(), input_shape=(3, 8, 8))
    pruned = PrunableNetwork(changed)
    kept = [np.arange(channels) for channels in pruned.channels]
    wanted = pruned.cut(kept)(images(2, 8))
    assert pruned.baseline.network is not changed.network
    with torch.no_grad():
        for parameter in changed.network.parameters():
            parameter.zero_()
    assert torch.equal(pruned.cut(kept)(images(2, 8)), wanted)


def test_networks_run_while_another_thread_traces(threads):
    tracing, runs = [], []
    tracer = OneThreadTracer()

    class Waiting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            tracing.append(True)
            runs.extend(threads.submit(NETWORK, images(2, 8)).result() for _ in range(3))
            return self.last(x)

    with torch.no_grad():
        wanted = NETWORK(images(2, 8))
    graph = tracer.trace(Waiting())
    assert tracing
    assert len(runs) == 3
    assert all(torch.equal(found, wanted) for found in runs)
    targets = [node.target for node in graph.nodes if node.op == "call_module"]
    assert targets == ["first", "last"]
