"""Wrappers are taken off, other precisions are converted, and what hides weights is refused."""

import warnings

import numpy as np
import pytest
import torch
from networks_for_tests import awaken, images, plain, simple_problem
from torch import nn
from torch.nn.utils import parametrizations, prune

from lfgcl_env.networks import load_baseline
from lfgcl_env.networks.plain_module import unwrap
from lfgcl_env.pruning import load_pruned


def nested(wrap) -> nn.Module:
    """A network with a wrapper around a part of it, as ImageNet's old VGGs have it."""
    network = awaken(plain())
    return nn.Sequential(wrap(network[:6]), network[6]).eval()


def compiled_in_place() -> nn.Module:
    network = awaken(plain())
    network.compile()
    return network


WRAPPED = {
    "compiled": lambda: torch.compile(awaken(plain())),
    "compiled in place": compiled_in_place,
    "compiled part": lambda: nested(torch.compile),
    "parallel": lambda: nn.DataParallel(awaken(plain())),
    "parallel part": lambda: nested(nn.DataParallel),
    "both": lambda: nn.DataParallel(torch.compile(awaken(plain()))).eval(),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrappers_are_taken_off_and_the_network_is_saved_under_its_own_names(name, tmp_path):
    network = WRAPPED[name]()
    names = [key for key, _ in network.named_modules()]
    problem = simple_problem(network, images(8))
    assert [key for key, _ in network.named_modules()] == names
    assert len(problem.groups) == 2
    smaller = problem.compress([3, 4])
    assert not any("module" in key or "_orig_mod" in key for key in smaller.state_dict())
    path = problem.save(tmp_path / "pruned", [3, 4], smaller)
    with torch.no_grad():
        for architecture in (network, unwrap(WRAPPED[name]())):
            loaded = load_pruned(path, architecture)
            assert torch.equal(loaded(images(3)), smaller(images(3)))


def test_distributed_networks_are_taken_out_of_their_wrapper():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        inner = awaken(plain())
        wrapped = nn.parallel.DistributedDataParallel(inner)
        assert unwrap(wrapped) is inner
    finally:
        torch.distributed.destroy_process_group()


def test_a_plain_network_is_taken_as_it_is():
    network = awaken(plain())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_baseline(network).network is network


@pytest.mark.parametrize("repair", ["none", "sequential"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_pruned_in_float32_and_say_so(dtype, repair, tmp_path):
    network = awaken(plain()).to(dtype)
    with pytest.warns(UserWarning, match=f"has {str(dtype)[6:]} weights: a float32 copy is pruned"):
        problem = simple_problem(network, images(8).to(dtype), repair=repair)
    assert {p.dtype for p in network.parameters()} == {dtype}
    smaller = problem.compress([3, 4])
    finished, _ = problem.finish([3, 4], images(8).to(dtype))
    for pruned in (smaller, finished):
        assert {p.dtype for p in pruned.parameters()} == {torch.float32}
    whole = problem.compress(problem.channels)
    assert torch.equal(whole[0].weight, network[0].weight.float())
    path = problem.save(tmp_path / "pruned", [3, 4], smaller)
    loaded = load_pruned(path, plain().to(dtype))
    with torch.no_grad():
        assert torch.equal(loaded(images(3)), smaller(images(3)))


def hooked(hook) -> nn.Module:
    network = awaken(plain())
    hook(network[3])
    network(images(2))
    return network


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        (
            lambda: torch.jit.trace(awaken(plain()), images(2)),
            r"the network is a TopLevelTracedModule, whose layers cannot be cut: pass the module",
        ),
        (lambda: torch.jit.script(awaken(plain())), "RecursiveScriptModule, whose layers cannot"),
        (
            lambda: torch.ao.quantization.quantize_dynamic(awaken(plain()), {nn.Linear}),
            r"6.fc is quantised \(Linear\): pass the network with its float weights",
        ),
        (
            lambda: hooked(lambda layer: prune.l1_unstructured(layer, "weight", 0.5)),
            r"the weight of 3 is computed by a hook .* torch.nn.utils.prune.remove\(layer, 'weight",
        ),
        (lambda: hooked(nn.utils.weight_norm), r"3 is .* torch.nn.utils.remove_weight_norm\(layer"),
        (lambda: hooked(nn.utils.spectral_norm), r"3 is .* torch.nn.utils.remove_spectral_norm\("),
    ],
)
def test_networks_that_hide_their_weights_are_refused_with_the_way_out(network, complaint):
    with pytest.raises(ValueError, match=complaint) as refused:
        load_baseline(network())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("repair", ["none", "least_squares", "sequential"])
def test_a_parametrised_layer_stays_whole_and_as_it_is(repair):
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    awaken(network)
    parametrizations.weight_norm(network[4])
    problem = simple_problem(network, images(8), repair=repair)
    assert [group.name for group in problem.groups] == ["0"]
    why = {exclusion.name: exclusion.reason for exclusion in problem.excluded}
    way_out = "torch.nn.utils.parametrize.remove_parametrizations(layer, name) ends that"
    assert why["2"].endswith(way_out)
    smaller = problem.compress([4])
    assert torch.equal(smaller[4].weight, network[4].weight)
    finished, _ = problem.finish([4], images(8))
    assert torch.equal(finished[4].weight, network[4].weight)
    assert np.isfinite(problem.evaluate([4]).similarity)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value):
    network = awaken(plain())
    network[0].weight.data[2, 0, 1, 1] = value
    with pytest.raises(ValueError, match="the weight of 0 has NaN or infinite values"):
        load_baseline(network)


def test_masks_may_be_infinite():
    network = awaken(plain())
    network.mask = nn.Parameter(torch.full((3, 3), -torch.inf).triu(1), requires_grad=False)
    assert load_baseline(network).network.mask.isinf().any()
