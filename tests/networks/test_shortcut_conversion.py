"""Weights for zero-padded shortcuts, loaded into networks with projections."""

import pytest
import torch
from networks_for_tests import awaken, images
from safetensors.torch import save_file

from lfgcl_env.networks import build_network, embedded_names, load_baseline, with_projections
from lfgcl_env.pruning import PruningProblem

GIVEN = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def outputs(network):
    with torch.no_grad():
        return network.eval()(images(8))


@pytest.mark.parametrize("depth", [20, 32])
def test_projections_compute_what_zero_padding_does(depth):
    padded = awaken(build_network(f"resnet{depth}"))
    projecting = build_network(f"resnet{depth}", shortcut="B")
    projecting.load_state_dict(with_projections(padded.state_dict(), projecting))
    assert torch.allclose(outputs(projecting), outputs(padded), atol=1e-5)


def test_weights_that_have_projections_and_networks_without_are_left_alone():
    projecting, padded = build_network("resnet20", shortcut="B"), build_network("resnet20")
    for network in (projecting, padded):
        state = network.state_dict()
        assert with_projections(state, network) == state
    partly = {k: v for k, v in projecting.state_dict().items() if "layer3.0.shortcut" not in k}
    assert with_projections(partly, projecting) == partly


@pytest.mark.parametrize(
    "weights", ["embedded", pytest.param("published", marks=pytest.mark.data("resnet20"))]
)
def test_weights_are_converted_where_projections_are_asked_for(weights):
    padded = load_baseline("resnet20", weights)
    projecting = load_baseline("resnet20", weights, shortcut="B")
    assert torch.allclose(outputs(projecting.network), outputs(padded.network), atol=1e-5)
    assert (projecting.weights, projecting.normalization) == (weights, padded.normalization)
    rebuilt = build_network(projecting.name, **projecting.arguments)
    rebuilt.load_state_dict(projecting.network.state_dict())


def test_weights_from_a_file_are_converted_too_and_unfit_ones_refused(tmp_path):
    state = awaken(build_network("resnet20")).state_dict()
    save_file(state, tmp_path / "own.safetensors")
    loaded = load_baseline(
        "resnet20", tmp_path / "own.safetensors", shortcut="B", normalization=GIVEN
    )
    padded = build_network("resnet20")
    padded.load_state_dict(state)
    assert torch.allclose(outputs(loaded.network), outputs(padded), atol=1e-5)
    save_file({"conv1.weight": state["conv1.weight"]}, tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match=r"lacks bn1\.weight"):
        load_baseline("resnet20", tmp_path / "part.safetensors", shortcut="B", normalization=GIVEN)


def test_residual_streams_can_be_pruned_from_the_weights_in_the_package():
    assert "resnet20" in embedded_names()
    baseline = load_baseline("resnet20", "embedded", shortcut="B")
    problem = PruningProblem(baseline, images(8), scope="all", criterion="l1", repair="none")
    coupled = [group.name for group in problem.groups if group.coupled]
    assert coupled == ["conv1", "layer2.0.conv2", "layer3.0.conv2"]
    assert len(problem.groups) == 12
