"""``lfgcl inspect`` and ``lfgcl prune`` on networks whose calls are easily taken for others."""

import json

import gymnasium as gym
import networks_by_name
import pytest
import torch
from command_for_tests import prune
from networks_for_tests import images

from lfgcl_env.cli.main import main
from lfgcl_env.pruning import load_pruned
from lfgcl_env.pruning.structure.layers import count_macs
from lfgcl_env.runs.best import read_best

GROUPS = {
    "Refining": {"block.0"},
    "Tied": {"widen", "last"},
    "Masked": {"stem", "middle", "last"},
    "Flagged": {"up"},
    "splitting": {"2.blocks.0.0", "4"},
}
"""Some of the groups of every network."""

EXCLUDED = {
    "Tied": {"stem": "here shares its weight with there"},
    "Flagged": {"qkv": "the network fails without its channels"},  # a head's are as ever
}
"""Why some others are left whole."""

SIZE = 16


def inspected(name, capsys):
    command = ["inspect", f"networks_by_name:{name}", "--weights", "random"]
    assert main([*command, "--input-shape", str(SIZE), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", GROUPS)
def test_a_network_is_inspected(name, capsys):
    network = getattr(networks_by_name, name)()
    found = inspected(name, capsys)
    assert found["params"] == sum(parameter.numel() for parameter in network.parameters())
    assert found["macs"] == count_macs(network, images(1, SIZE))
    assert {one["name"] for one in found["groups"]} >= GROUPS[name]
    assert all(found["repairs"][one] is None for one in ("none", "least_squares"))
    by_calls = name == "splitting"  # a list that grows by a generator has no graph
    assert found["handed_over"]["repair"] == ("by calls" if by_calls else "sequential")
    left = {one["name"]: one["reason"] for one in found["not_pruned"]}
    for layer, why in EXCLUDED.get(name, {}).items():
        assert left[layer].startswith(why)


@pytest.mark.parametrize(
    ("name", "repair"),
    [
        (name, repair)
        for name in GROUPS
        for repair in ("least_squares", "sequential")
        if (name, repair) != ("splitting", "sequential")  # which needs a graph
    ],
)
def test_a_network_is_pruned_and_never_worse_than_merely_cut(name, repair, tmp_path, capsys):
    target = f"networks_by_name:{name}"
    config = {"weights": "random", "images": "random", "num_images": 16, "budget": 0.7}
    options = ["--input-shape", str(SIZE), "--budget", "0.7", "--num-images", "16"]
    options += ["--repair", repair, "--shortlist", "2", "--repair-images", "64"]
    assert prune(tmp_path, *options, target=target) == 0
    assert "\nhanded over: the network " in capsys.readouterr().out
    best = read_best(tmp_path)
    network = load_pruned(tmp_path / "pruned.safetensors", getattr(networks_by_name, name)())
    assert count_macs(network, images(1, SIZE)) == best.macs
    assert sum(parameter.numel() for parameter in network.parameters()) == best.params
    params = {layer.name: layer.params for layer in best.layers}
    if name == "Tied":
        assert (params["here"], params["there"]) == ([12 * 12 * 9 + 12] * 2, [12, 12])
    assert min(params["(others)"]) >= 0
    env = gym.make("LFGCL-v0", network=target, input_shape=(3, SIZE, SIZE), repair=repair, **config)
    own = env.unwrapped
    keep = own.problem.network.check_strategy(best.keep)
    judged = own.judge(network, keep)
    assert judged == pytest.approx(best.shortlist[0].score, abs=1e-5)
    assert judged >= own.judge(own.problem.cut(keep), keep)
    network.train()(images(2, SIZE)).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


def test_a_run_goes_on_with_another_shortlist(tmp_path, capsys):
    target = "networks_by_name:Masked"
    options = ["--input-shape", str(SIZE), "--budget", "0.7"]
    assert prune(tmp_path / "run", *options, target=target) == 0
    assert read_best(tmp_path / "run").shortlist == []
    resume = ["prune", target, "--resume", "--out", str(tmp_path / "run")]
    more = ["--shortlist", "2", "--repair-images", "16"]
    assert main([*resume, *more]) == 0
    assert prune(tmp_path / "whole", *options, *more, target=target) == 0
    resumed, whole = (read_best(tmp_path / name) for name in ("run", "whole"))
    assert len(whole.shortlist) == 2
    assert resumed == whole
    names = "run", "whole"
    one, other = ((tmp_path / name / "pruned.safetensors").read_bytes() for name in names)
    assert one == other
    capsys.readouterr()
    assert main([*resume, "--shortlist", "0"]) == 0
    assert "handed over: the network as it was scored" in capsys.readouterr().out
    assert read_best(tmp_path / "run").shortlist == []
