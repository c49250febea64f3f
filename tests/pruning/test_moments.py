import numpy as np
import pytest
import torch
from networks_for_tests import awaken, images
from torch import nn

from lfgcl_env.cli.main import main
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.moments import second_moments as moments_module
from lfgcl_env.pruning.moments.patches import PatchReader, choose_positions, gram
from lfgcl_env.pruning.moments.second_moments import (
    collect_moments,
    large_layers,
    repaired_weights,
    ridge_strength,
)
from lfgcl_env.pruning.structure.slice_plan import SlicePlan
from lfgcl_env.pruning.structure.tracing import find_groups
from lfgcl_env.runs import report


def network(depth=20, **arguments):
    baseline = load_baseline(f"resnet{depth}", weights="random", **arguments)
    awaken(baseline.network)
    return baseline


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(5, 7, 3, padding=1), (5, 9, 8)),
        (nn.Conv2d(5, 7, (3, 5), stride=(2, 1), padding=(0, 2), dilation=(2, 1)), (5, 13, 12)),
        (nn.Conv2d(5, 7, 1, bias=False), (5, 6, 6)),
        (nn.Conv2d(4, 6, 3, padding="same", padding_mode="reflect"), (4, 7, 7)),
        (nn.Conv1d(4, 6, 3, stride=2, padding=1), (4, 11)),
        (nn.Conv3d(3, 4, (1, 2, 3), padding=(0, 1, 1)), (3, 4, 5, 6)),
        (nn.Linear(6, 4), (6,)),
        (nn.Linear(6, 4, bias=False), (5, 6)),
    ],
)
def test_a_row_times_the_weights_is_the_layers_output(module, shape):
    torch.manual_seed(0)
    x = torch.randn(3, *shape)
    reader = PatchReader(module)
    chosen = torch.arange(reader.positions(x)).expand(3, -1)
    rows = reader.rows(x, chosen)
    output = module(x)
    output = output.movedim(1, -1) if reader.kernel else output
    matrix = reader.matrix(module.weight, module.bias)
    torch.testing.assert_close(rows @ matrix.T, output.reshape(-1, output.shape[-1]))
    weight, bias = reader.weight(matrix)
    assert torch.equal(weight, module.weight)
    assert torch.equal(bias, torch.zeros(len(bias)) if module.bias is None else module.bias)


def test_columns_of_channels_are_where_their_weights_are():
    module = nn.Conv2d(5, 2, 3)
    reader = PatchReader(module)
    with torch.no_grad():
        module.weight.zero_()
        module.weight[:, [1, 4]] = 1.0
    matrix = reader.matrix(module.weight, None)
    columns = reader.columns(torch.tensor([1, 4]))
    assert matrix[:, columns].eq(1).all()
    assert matrix.sum() == 2 * 2 * 9


def test_chosen_positions_are_distinct_and_seeded():
    first, again = (
        choose_positions(4, 100, 10, torch.Generator().manual_seed(0)) for _ in range(2)
    )
    assert torch.equal(first, again)
    assert all(len(set(row.tolist())) == 10 for row in first)
    assert choose_positions(2, 5, 9, torch.Generator()).tolist() == [list(range(5))] * 2


def test_gram_is_summed_in_double_precision():
    rows = torch.randn(10_000, 3) + 100
    torch.testing.assert_close(gram(rows), rows.double().T @ rows.double(), rtol=1e-6, atol=0)


def problem_moments(every, images_of=None):
    baseline = network()
    x = images(8) if images_of is None else images_of
    tracing = find_groups(baseline.network, x[:2])
    groups = [group for group in tracing.groups if not group.coupled]
    plan = SlicePlan(baseline.network, groups)
    found = collect_moments(baseline.network, plan, [x], tracing.followed_by, every=every)
    return baseline.network, groups, found


def test_moments_of_all_positions_are_those_of_unfolded_inputs():
    network_, _, found = problem_moments(every=True)
    inputs = []
    layer = network_.get_submodule("layer2.0.conv2")
    handle = layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        network_(images(8))
    handle.remove()
    patches = nn.functional.unfold(inputs[0], 3, padding=1).movedim(1, 2).reshape(-1, 32 * 9)
    patches = patches.reshape(len(patches), 32, 9).movedim(1, 2).flatten(1).double()
    moments = found["layer2.0.conv2"]
    torch.testing.assert_close(
        moments.gram[:-1, :-1], patches.T @ patches / len(patches), rtol=1e-5, atol=1e-7
    )
    torch.testing.assert_close(moments.mean[:-1], patches.mean(0), rtol=1e-5, atol=1e-7)
    assert moments.rows == len(patches)


def test_closed_form_is_least_squares_on_the_same_data():
    network_, _, found = problem_moments(every=True)
    moments = found["layer1.0.conv2"]
    layer = network_.get_submodule("layer1.0.conv2")
    inputs = []
    handle = layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        network_(images(8))
    handle.remove()
    chosen = torch.arange(32 * 32).expand(8, -1)
    rows = moments.reader.rows(inputs[0], chosen).double()
    kept = torch.tensor([0, 3, 5, 6, 9, 12])
    columns = torch.cat([moments.reader.columns(kept), torch.tensor([144])])
    ridge = moments_module.ridge_of(moments.gram[columns][:, columns], moments.ridge)
    prior = moments.weights[:, columns]
    # The ridge towards the prior is data too: one row per feature.
    penalty = torch.diag((ridge * len(rows)).sqrt())
    stacked = torch.cat([rows[:, columns], penalty]).numpy()
    target = torch.cat([rows @ moments.weights.T, penalty @ prior.T]).numpy()
    expected = np.linalg.lstsq(stacked, target, rcond=None)[0].T
    np.testing.assert_allclose(repaired_weights(moments, kept).numpy(), expected, atol=1e-5)


def test_keeping_everything_gives_the_baselines_weights_back():
    _, _, found = problem_moments(every=False)
    for moments in found.values():
        kept = torch.arange(moments.reader.channels)
        torch.testing.assert_close(
            repaired_weights(moments, kept), moments.weights, rtol=0, atol=1e-6
        )


def test_refitting_beats_cutting_on_the_same_data():
    _, groups, found = problem_moments(every=False)
    for group in groups:
        moments = found[group.layers("in")[0]]
        kept = torch.arange(0, group.channels, 2)
        columns = torch.cat(
            [moments.reader.columns(kept), torch.tensor([moments.gram.shape[0] - 1])]
        )

        def error(weights, moments=moments, columns=columns):
            difference = moments.weights.clone()
            difference[:, columns] -= weights
            return float(((difference @ moments.gram) * difference).sum())

        assert error(repaired_weights(moments, kept)) < 0.9 * error(moments.weights[:, columns])


def test_singular_moments_give_finite_weights():
    constant = torch.ones(8, 3, 32, 32)
    _, _, found = problem_moments(every=False, images_of=constant)
    for moments in found.values():
        weights = repaired_weights(moments, torch.arange(0, moments.reader.channels, 3))
        assert torch.isfinite(weights).all()


def test_large_layers_fall_back_to_means(monkeypatch):
    monkeypatch.setattr(moments_module, "LARGEST", 200)
    problem = PruningProblem(network(), images(8))
    large = problem.moments["layer2.0.conv2"]
    assert large.gram is None
    assert problem.moments["layer1.0.conv2"].gram is not None
    kept = torch.arange(16)
    weights = repaired_weights(large, kept)
    columns = large.reader.columns(kept)
    assert torch.equal(weights[:, :-1], large.weights[:, columns])
    before, after = large.weights @ large.mean, weights[:, :-1] @ large.mean[columns]
    torch.testing.assert_close(after + weights[:, -1], before)
    assert np.isfinite(problem.evaluate(problem.channels // 2).similarity)


def large_of(problem):
    return large_layers(problem.baseline.network, problem.network.plan)


def test_large_layers_are_named_without_images_and_in_the_report(monkeypatch, capsys):
    problem = PruningProblem(network(), images(8))
    assert large_of(problem) == {}
    assert report.list_large_layers(problem) == ""
    monkeypatch.setattr(moments_module, "LARGEST", 400)
    problem = PruningProblem(network(), images(8), repair="none", criterion="l1")
    large = {f"layer3.{block}.conv2": 577 for block in range(3)}
    assert large_of(problem) == large
    assert report.list_large_layers(problem) == ""
    refitting = PruningProblem(network(), images(8))
    assert {name for name, m in refitting.moments.items() if m.gram is None} == set(large)
    remarks = report.list_large_layers(refitting)
    assert all(f"{name} (577)" in remarks for name in large)
    keep = refitting.channels
    table = report.compare_layers(refitting.network, keep, refitting.compress(keep))
    assert report.format_page(refitting, table, "title", "scored").endswith(remarks)
    main(["inspect", "resnet20", "--weights", "random"])
    printed = capsys.readouterr().out
    assert all(f"{name}  577" in printed for name in large)


def test_few_rows_raise_the_ridge():
    assert ridge_strength(1e-4, 100, 100_000) == 1e-4
    assert ridge_strength(1e-4, 1000, 100) > 0.5


def test_least_squares_problem_scores_what_it_compresses():
    problem = PruningProblem(network(), images(16), similarity="cosine")
    keep = problem.project(np.full(len(problem.groups), 0.5))
    evaluation = problem.evaluate(keep)
    assert problem.score_network(problem.compress(keep), keep) == pytest.approx(
        evaluation.similarity, abs=1e-6
    )
    cut = PruningProblem(network(), images(16), similarity="cosine", repair="none")
    assert evaluation.similarity > cut.evaluate(keep).similarity
    assert problem.evaluate(problem.channels).similarity == pytest.approx(1.0, abs=1e-9)


def test_reinstalling_strategies_does_not_mix_their_repairs():
    problem = PruningProblem(network(), images(8))
    rng = np.random.default_rng(0)
    strategies = [problem.project(rng.random(len(problem.groups))) for _ in range(4)]
    fresh = [PruningProblem(network(), images(8)).features(s)[0] for s in strategies]
    for index in (0, 1, 2, 3, 1, 0, 3):
        torch.testing.assert_close(problem.features(strategies[index])[0], fresh[index])


@pytest.mark.gpu
def test_cuda_gives_the_same_similarities():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    keep = None
    for repair in ("none", "batchnorm", "least_squares"):
        here = PruningProblem(network(), images(16), repair=repair)
        there = PruningProblem(network(), images(16), repair=repair, device="cuda")
        keep = here.project(np.full(len(here.groups), 0.5)) if keep is None else keep
        similarity = there.evaluate(keep).similarity
        assert similarity == pytest.approx(here.evaluate(keep).similarity, abs=1e-4)
