"""Networks that lost heads of attention are repaired, saved, loaded, trained and exported."""

import pytest
import torch
from attention_networks import (
    BUILDERS,
    UNTRACEABLE,
    Classifier,
    Conditional,
    ReadsItself,
    Voters,
    build,
    lively,
    problem_of,
)
from networks_for_tests import images, random_strategy

from lfgcl_env.pruning import load_pruned


@pytest.mark.parametrize("repair", ["none", "least_squares", "sequential"])
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if "swin" in n else n for n in BUILDERS]
)
def test_networks_are_repaired_saved_loaded_and_trained(name, repair, tmp_path):
    if name in UNTRACEABLE and repair == "sequential":
        with pytest.raises(ValueError, match="sequential repair needs a network whose tensors"):
            problem_of(build(name), repair=repair)
        return
    problem = problem_of(build(name), repair=repair)
    assert problem.evaluate(problem.channels).similarity == pytest.approx(1, abs=1e-5)
    strategy = random_strategy(problem, 2)
    smaller = problem.compress(strategy)
    path = problem.save(tmp_path / "pruned", strategy, smaller)
    loaded = load_pruned(path, build(name))
    with torch.no_grad():
        assert torch.equal(loaded(images(3, seed=5)), smaller(images(3, seed=5)))
    assert [m.extra_repr() for m in loaded.modules()] == [m.extra_repr() for m in smaller.modules()]
    loaded.train()(images(2)).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in loaded.parameters())
    exported = torch.export.export(smaller, (images(2),)).module()
    with torch.no_grad():
        assert torch.allclose(exported(images(2)), smaller(images(2)), atol=1e-5)


@pytest.mark.parametrize("name", ["fused", "vit", "swin"])
def test_refitting_the_output_projection_makes_up_for_heads(name):
    scores = []
    for repair in ("none", "least_squares"):
        problem = problem_of(build(name), repair=repair, similarity="mse")
        keep = problem.channels.copy()
        heads = [index for index, group in enumerate(problem.groups) if group.bundle > 1]
        keep[heads] //= 2
        scores.append(problem.evaluate(keep).similarity)
    assert scores[1] > scores[0] + 0.01


def test_sequential_repair_refuses_graphs_that_do_not_hold_for_cut_networks():
    network = lively(Classifier(ReadsItself()))
    with pytest.raises(ValueError, match="do not depend on its own sizes"):
        problem_of(network, repair="sequential")
    assert problem_of(network, repair="least_squares").evaluate([2, 7]).similarity > 0


def test_conditions_on_heads_are_traced_and_loops_over_them_are_not():
    network = lively(Classifier(Conditional("conditions")))
    problem = problem_of(network, repair="sequential")
    assert problem.evaluate([1, 7]).similarity > 0
    looped = lively(Classifier(Conditional("loop")))
    with pytest.raises(ValueError, match="do not depend on its own sizes"):
        problem_of(looped, repair="sequential")
    cheap = problem_of(looped, repair="least_squares")
    assert len(cheap.screen([[1, 7], [2, 9]])) == 2
    (finished,) = cheap.repair_all([[2, 7]], images(32))
    assert cheap.score_network(finished, [2, 7]) > cheap.score_network(cheap.cut([2, 7]), [2, 7])


@pytest.mark.parametrize("protect", ["attention", None])
def test_loops_over_heads_that_stay_are_traced(protect):
    looped = Classifier(Conditional("loop") if protect else Voters(classifiers=True))
    network = lively(looped if protect else looped.attention)
    problem = problem_of(network, repair="sequential", protect=[protect] if protect else ())
    assert problem.evaluate(problem.channels // 2).similarity > 0


@pytest.mark.parametrize("name", ["fused", "stock", "swin"])
def test_networks_without_heads_in_a_block_are_saved_and_loaded(name, tmp_path):
    problem = problem_of(build(name), repair="least_squares", min_channels=0)
    strategy = problem.channels.copy()
    strategy[0] = 0
    smaller = problem.compress(strategy)
    loaded = load_pruned(problem.save(tmp_path / "pruned", strategy, smaller), build(name))
    with torch.no_grad():
        assert torch.equal(loaded(images(3)), smaller(images(3)))
