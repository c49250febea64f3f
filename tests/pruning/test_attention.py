"""Attention loses whole heads, exactly, wherever a module counts its heads and keeps them apart."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from attention_networks import (
    BUILDERS,
    AsWide,
    Block,
    Classifier,
    Fused,
    Mixing,
    Reordered,
    Scrambled,
    Stock,
    Transposed,
    Voters,
    build,
    lively,
    problem_of,
    prunable,
)
from networks_for_tests import check_exactness, images
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import has_torch_function

import lfgcl_env  # noqa: F401
from lfgcl_env.cli.main import main
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PrunableNetwork
from lfgcl_env.pruning.criteria.criterion import CRITERIA
from lfgcl_env.pruning.structure.layers import count_macs


@pytest.mark.parametrize("name", BUILDERS)
def test_cut_is_hidden_and_costs_are_counted(name):
    network = prunable(build(name))
    heads = [group for group in network.groups if group.bundle > 1]
    assert [group.channels for group in heads] in ([4], [4, 4], [2, 2, 4, 4])
    draws = (np.random.default_rng(seed) for seed in range(3))
    check_exactness(network, [*(d.integers(1, network.channels + 1) for d in draws)])
    check_exactness(network, [network.lowest])


@pytest.mark.parametrize("name", ["fused", "separate", "stock", "vit", "swin"])
def test_all_heads_of_a_block_may_go_where_that_is_exact(name):
    network = prunable(build(name), min_channels=0)
    heads = [group.bundle > 1 for group in network.groups]
    # "separate" asks for a width that no heads leave open, and the last block of a ViT is the only
    # one in which its class token sees the image.
    assert (
        network.lowest[heads].tolist()
        == {
            "fused": [0],
            "separate": [1],
            "stock": [0],
            "vit": [0, 1],
            "swin": [0, 0, 0, 0],
        }[name]
    )
    check_exactness(network, [network.lowest])


def test_a_head_is_a_bundle_of_the_channels_of_its_layers():
    network = prunable(build("separate"))
    group = network.groups[0]
    assert (group.name, group.channels, group.bundle) == ("attention.q", 4, 5)
    sizes = {member.layer: (member.side, group.bundle_of(member)) for member in group.members}
    assert sizes == {
        "attention.gate": ("out", 8),
        "attention.q": ("out", 5),
        "attention.k": ("out", 5),
        "attention.v": ("out", 8),
        "attention.out": ("in", 8),
        "attention": ("through", 1),
    }
    fused = prunable(build("fused")).groups[0]
    head = [*range(6, 12), *range(30, 36), *range(54, 60)]
    assert fused.positions(np.array([1])).tolist() == head
    first = prunable(build("fused, heads first")).groups[0]
    assert first.positions(np.array([1])).tolist() == list(range(18, 36))


@pytest.mark.parametrize("criterion", sorted(CRITERIA.keys() - {"bn_scale", "hrank"}))
def test_criteria_order_heads(criterion):
    problem = problem_of(build("fused"), criterion=criterion)
    assert sorted(problem._ranking.orders[0].tolist()) == [0, 1, 2, 3]


def test_observations_and_inspections_count_heads(capsys):
    env = gym.make("LFGCL-v0", network=build("swin"), images=images(16), num_images=None)
    observation, _ = env.reset(seed=0)
    assert np.isfinite(observation).all()
    _, _, _, _, info = env.step(env.action_space.sample())
    assert info["keep"][::2].max() <= 4
    assert main(["inspect", "attention_networks:vit"]) == 0
    assert "4 x 6" in capsys.readouterr().out


def test_limits_count_the_channels_of_heads():
    network = build("fused")
    assert prunable(network, min_channels=19).rounding.fewest.tolist() == [2, 19]
    assert prunable(network, max_prune_ratio=0.5).rounding.fewest.tolist() == [2, 10]
    kept = prunable(network, protect=["attention"])
    assert [group.name for group in kept.groups] == ["mlp.0"]
    reasons = {e.name: e.reason for e in kept.excluded}
    assert reasons["attention.qkv"] == "protect='attention' keeps it as it is"


def test_an_output_of_zeros_does_not_pass_for_an_exact_cut():
    network = lively(Classifier(Reordered()))
    nn.init.zeros_(network.fc.weight)
    assert [group.name for group in prunable(network).groups] == ["mlp.0"]


MIXES = "attention mixes its heads: channels of attention.qkv reach more than one"


@pytest.mark.parametrize(
    ("attention", "reason"),
    [
        (Mixing, MIXES),
        (Scrambled, MIXES),
        (AsWide, "the network fails without its channels"),
        (Reordered, "removing its channels changes more than hiding them"),
    ],
)
def test_heads_that_cannot_go_stay_and_it_says_why(attention, reason):
    network = prunable(lively(Classifier(attention())))
    assert [group.name for group in network.groups] == ["mlp.0"]
    reasons = {e.name: e.reason for e in network.excluded}
    assert reasons["attention.qkv"].startswith(reason)
    module, inputs = network.baseline.network, images(1)
    assert network.baseline_cost.macs == count_macs(module, inputs)


@pytest.mark.parametrize("classifiers", [False, True])
def test_a_number_called_heads_alone_makes_no_attention(classifiers):
    network = prunable(lively(Voters(classifiers)))
    found = [(group.name, group.channels, group.bundle) for group in network.groups]
    assert found == [("conv", 8, 1), ("first", 32, 1), ("second", 16, 1)]
    check_exactness(network, [np.array([3, 5, 7])])


def test_layers_behind_attention_have_channels_and_no_heads():
    network = prunable(lively(Classifier(Block())))
    found = [(group.name, group.channels) for group in network.groups]
    assert found == [("attention.mlp.0", 20), ("mlp.0", 20)]
    reasons = {e.name: e.reason for e in network.excluded}
    assert reasons["attention.inner.qkv"].startswith("the network fails without its channels")


def test_heads_are_found_where_fused_attention_takes_nan_for_zeros(monkeypatch):
    attention = F.scaled_dot_product_attention

    def forgetful(*arguments: object, **keywords: object) -> Tensor:
        given = attention(*arguments, **keywords)
        return given if has_torch_function(arguments) else given.nan_to_num()

    monkeypatch.setattr(F, "scaled_dot_product_attention", forgetful)
    assert prunable(build("fused")).groups[0].bundle == 18


def test_heads_are_found_where_a_script_attends(monkeypatch):
    @torch.jit.script
    def scripted(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value)

    monkeypatch.setattr(F, "scaled_dot_product_attention", scripted)
    for tokens in (5, 8, 17):  # NaN gets lost on some processors where there are few
        network = lively(nn.Sequential(Fused(), nn.Flatten(), nn.Linear(24 * tokens, 3)))
        groups = PrunableNetwork(load_baseline(network, input_shape=(tokens, 24))).groups
        assert [(group.channels, group.bundle) for group in groups] == [(4, 18)]


def test_heads_that_only_change_places_can_go():
    network = prunable(lively(Classifier(Transposed())))
    assert network.groups[0].name == "attention.qkv"
    check_exactness(network, [np.array([2, 7])])


def test_one_head_alone_stays():
    network = prunable(lively(Classifier(Stock(batch_first=True))))
    assert network.groups[0].channels == 4
    alone = Classifier(nn.Identity())
    alone.attention = Stock(batch_first=True)
    alone.attention.heads = nn.MultiheadAttention(24, 1, batch_first=True)
    reasons = {e.name: e.reason for e in prunable(lively(alone)).excluded}
    assert reasons["attention.heads.q"] == "attention.heads has one attention head"
