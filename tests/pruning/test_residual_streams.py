"""scope="all": residual streams are cut, scored, ordered and repaired like every other group."""

from functools import cache

import numpy as np
import pytest
import torch
from networks_for_tests import Residual, awake_baseline, awaken, images

from lfgcl_env.pruning import PruningProblem, allocate
from lfgcl_env.pruning.repair.profiles import SequentialOptions
from lfgcl_env.pruning.sensitivities import sensitivities

FEW = SequentialOptions(rows=4096, gauss_newton=0)
SHORTCUTS = ("layer2.0.shortcut.0", "layer3.0.shortcut.0")
STREAMS = ("conv1", "layer2.0.conv2", "layer3.0.conv2")


@cache
def problem_of(min_channels: int = 1) -> PruningProblem:
    return PruningProblem(
        awake_baseline("resnet20-B"),
        images(32),
        budget=0.6,
        scope="all",
        min_channels=min_channels,
        repair="least_squares",
    )


def cut_streams(problem: PruningProblem, ratio: float = 0.75) -> np.ndarray:
    """Streams lose channels; whole blocks go too where they may."""
    coupled = np.array([group.coupled for group in problem.groups])
    keep = np.where(coupled, ratio * problem.channels, problem.channels).astype(int)
    return np.where(problem.lowest == 0, np.where(np.arange(len(keep)) % 2, keep, 0), keep)


def stage_ends(network: torch.nn.Module, inputs: torch.Tensor) -> list[torch.Tensor]:
    """What leaves each stage."""
    found: list[torch.Tensor] = []
    handles = [
        network.get_submodule(stage).register_forward_hook(lambda _, __, out: found.append(out))
        for stage in ("layer1", "layer2", "layer3")
    ]
    with torch.no_grad():
        network(inputs)
    for handle in handles:
        handle.remove()
    return found


def errors_at_stage_ends(problem: PruningProblem, network: torch.nn.Module, keep) -> list[float]:
    """Relative squared errors of the channels that stay."""
    kept = dict(zip([g.name for g in problem.groups], problem.kept_channels(keep), strict=True))
    whole = stage_ends(problem.baseline.network, images(32))
    pairs = zip(STREAMS, whole, stage_ends(network, images(32)), strict=True)
    wanted = [(target[:, kept[name]], found) for name, target, found in pairs]
    return [float((f - t).square().sum() / (t - t.mean(0)).square().sum()) for t, f in wanted]


def test_every_stream_has_moments_of_all_layers_that_it_feeds():
    problem = problem_of()
    fed = {g.name: g.layers("in") for g in problem.groups if g.coupled}
    assert tuple(fed) == STREAMS
    assert all(name in problem.moments for names in fed.values() for name in names)
    blocks = {"layer1.0.conv1", "layer1.1.conv1", "layer1.2.conv1", "layer2.0.conv1"}
    assert set(fed["conv1"]) == blocks | {SHORTCUTS[0]}
    assert "linear" in fed["layer3.0.conv2"]


@pytest.mark.parametrize("min_channels", [1, 0])
def test_sequential_repair_brings_streams_nearer_to_the_baseline_where_they_stay(min_channels):
    problem = problem_of(min_channels)
    keep = cut_streams(problem)
    assert (keep == 0).any() == (min_channels == 0)
    before = errors_at_stage_ends(problem, problem.compress(keep), keep)
    network, _ = problem.finish(keep, images(32), FEW)
    after = errors_at_stage_ends(problem, network, keep)
    assert all(a < b for a, b in zip(after, before, strict=True))


def test_shortcuts_that_read_a_pruned_stream_are_refitted():
    problem = problem_of()
    keep = cut_streams(problem)
    cut, (repaired, _) = problem.compress(keep), problem.finish(keep, images(32), FEW)
    for name in SHORTCUTS:
        one, other = cut.get_submodule(name).weight, repaired.get_submodule(name).weight
        assert one.shape == other.shape
        assert not torch.allclose(one, other, rtol=1e-3)


@pytest.mark.parametrize("min_channels", [1, 0])
def test_an_allocation_spends_a_budget_over_streams_and_inner_groups(min_channels):
    problem = problem_of(min_channels)
    keep = allocate(problem, 0.4)
    assert problem.meets(keep, 0.4)
    coupled = np.array([group.coupled for group in problem.groups])
    assert (keep < problem.channels)[coupled].any()
    assert (keep < problem.channels)[~coupled].any()


@pytest.mark.parametrize(("scope", "evaluated"), [("inner", 0), ("all", 2)])
def test_sensitivities_of_coupled_groups_are_measured_by_evaluations_however_costly(
    scope, evaluated
):
    network = awaken(Residual())
    problem = PruningProblem(network, images(16), repair="sequential", scope=scope, budget=0.9)
    with problem.count() as counted:
        sensitivities(problem)
    assert len(counted) == evaluated
