import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks_for_tests import FAMILIES, awaken, images, plain, simple_problem
from torch import nn
from torchvision import models

from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PruningProblem, allocate
from lfgcl_env.pruning.repair.cut_graph import find_obstacle
from lfgcl_env.pruning.repair.layer_fit import Fit
from lfgcl_env.pruning.repair.profiles import SequentialOptions
from lfgcl_env.pruning.repair.walk import Walk

FEW = SequentialOptions(rows=4096, gauss_newton=0)


def made(name, budget=0.6, size=32, **arguments):
    network, more = FAMILIES[name]
    baseline = load_baseline(network, weights="random", input_shape=(3, size, size), **more)
    awaken(baseline.network)
    return PruningProblem(baseline, images(32, size), budget=budget, **arguments)


def uniform(problem):
    return problem.project(np.full(len(problem.groups), 0.5))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "scope"),
    [("resnet20", "inner"), ("resnet20-B", "all"), ("resnet18", "all")],
)
def test_sequential_repair_brings_features_nearer_on_the_images_it_saw(name, scope):
    problem = made(name, scope=scope)
    keep = uniform(problem)
    before = problem.evaluate(keep).similarity
    _, repaired = problem.finish(keep, images(32), FEW)
    assert repaired.similarity > before
    assert repaired.keep == tuple(keep)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "regnet_y_400mf"])
def test_few_rows_for_many_features_leave_a_network_no_worse_on_other_images(name):
    network = awaken(models.get_model(name))
    mine, others, judged = (images(32, seed=seed) for seed in range(3))
    problem = PruningProblem(network, mine, judged, budget=0.6, criterion="l1")
    keep = uniform(problem)
    (repaired,) = problem.repair_all([keep], others, SequentialOptions(rows=4096, gauss_newton=1))
    assert problem.score_network(repaired, keep) > problem.evaluate(keep).similarity


@pytest.mark.parametrize(("count", "held_out"), [(32, 0), (12, 1)])
def test_the_layer_that_gives_outputs_needs_two_rows_for_each_feature(count, held_out, monkeypatch):
    problem = simple_problem(awaken(plain()), images(8))
    choose, chosen = Fit._strength_by_others, []
    monkeypatch.setattr(
        Fit, "_strength_by_others", lambda fit, *a: chosen.append(fit) or choose(fit, *a)
    )
    problem.repair_all([[4, 6]], images(count), FEW)
    assert len(chosen) == held_out  # the convolution has a row for every pixel


@pytest.mark.parametrize("count", [2, 3])
def test_two_or_three_rows_give_finite_weights(count):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
    problem = simple_problem(network, images(4, 2))
    (repaired,) = problem.repair_all([[4]], images(count, 2), FEW)
    assert all(torch.isfinite(p).all() for p in repaired.parameters())


def test_alternation_improves_on_a_single_pass():
    problem = made("resnet20", budget=0.5)
    keep = uniform(problem)
    single = problem.finish(keep, images(32), FEW)[1].similarity
    options = SequentialOptions(rows=4096, relu_aware=1, gauss_newton=3)
    assert problem.finish(keep, images(32), options)[1].similarity > single


@pytest.mark.parametrize("name", ["mobilenet_v2", "densenet", "shufflenet_v2_x0_5"])
def test_every_family_can_be_repaired_and_stays_finite(name):
    problem = made(name, budget=0.8)
    keep = uniform(problem)
    (network,) = problem.repair_all([keep], images(8, seed=1), FEW)
    with torch.no_grad():
        assert torch.isfinite(network(images(4, seed=2))).all()
    assert sum(p.numel() for p in network.parameters()) == problem.cost(keep).params


def test_nothing_pruned_nothing_changed():
    problem = made("resnet20", budget=1.0)
    network, evaluation = problem.finish(problem.channels, images(16), FEW)
    assert evaluation.similarity == pytest.approx(1.0, abs=1e-9)
    for key, tensor in problem.baseline.network.state_dict().items():
        assert torch.equal(network.state_dict()[key], tensor)


def test_repair_is_deterministic_and_leaves_the_baseline_alone():
    problem = made("resnet20")
    before = copy.deepcopy(problem.baseline.network.state_dict())
    first, second = (problem.repair_all([uniform(problem)], images(16), FEW)[0] for _ in range(2))
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[key])
    for key, tensor in before.items():
        assert torch.equal(tensor, problem.baseline.network.state_dict()[key])


def test_dead_channels_and_constant_images_give_finite_weights():
    problem = made("resnet20")
    with torch.no_grad():
        norm = problem.baseline.network.get_submodule("layer1.0.bn2")
        norm.weight[0] = 0.0
    (network,) = problem.repair_all([uniform(problem)], torch.zeros(4, 3, 32, 32), FEW)
    assert all(torch.isfinite(p).all() for p in network.parameters())


class Viewing(nn.Module):
    """A network that flattens with view, which channels_last images cannot pass."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8 * 64, 5)

    def forward(self, x):
        x = torch.relu(self.second(torch.relu(self.norm(self.first(x)))))
        return self.last(x.view(x.size(0), -1))


def test_networks_that_flatten_with_view_can_be_repaired():
    problem = PruningProblem(Viewing().eval(), images(8, 8), budget=0.6)
    _, repaired = problem.finish(uniform(problem), images(8, 8, seed=1), FEW)
    assert np.isfinite(repaired.similarity)


@pytest.mark.slow
@pytest.mark.data("CIFAR10", "resnet20")
def test_a_halved_resnet20_works_before_any_training():
    from lfgcl_env.images import load_images, load_test_set, top1

    baseline = load_baseline("resnet20")
    drawn = load_images(
        "CIFAR10", 512, shape=baseline.input_shape, normalization=baseline.normalization
    )
    test = load_test_set("CIFAR10", normalization=baseline.normalization)
    test = type(test)(test.images[:1000], test.labels[:1000], test.name)
    problem = PruningProblem(baseline, drawn[:256])
    keep = allocate(problem, 0.5)
    refitted = top1(problem.compress(keep), test)
    repaired = top1(problem.finish(keep, drawn[256:], FEW)[0], test)
    assert refitted > 65
    assert repaired > 80


@pytest.mark.gpu
@pytest.mark.parametrize("gauss_newton", [0, 2])
def test_cuda_repairs_to_the_same_similarity(gauss_newton):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    options = replace(FEW, gauss_newton=gauss_newton)
    here, there = made("resnet20"), made("resnet20", device="cuda")
    keep = uniform(here)
    found = [p.finish(keep, images(32, seed=1), options)[1].similarity for p in (here, there)]
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_whole_blocks_are_refitted_to_constants():
    problem = made("resnet20", budget=0.5, min_channels=0)
    keep = uniform(problem)
    keep[[1, 4]] = 0
    rough = problem.judge(images(32, seed=2))(problem.compress(keep))
    network, _ = problem.finish(keep, images(32), replace(FEW, gauss_newton=1))
    assert sum(p.numel() for p in network.parameters()) == problem.cost(keep).params
    assert problem.judge(images(32, seed=2))(network) > rough


@pytest.mark.parametrize("min_channels", [0, 1])
def test_a_score_after_sequential_repair_is_that_of_the_compressed_network(min_channels):
    problem = made("resnet20", repair="sequential", min_channels=min_channels)
    keep = uniform(problem)
    keep[2] = max(1, min_channels)
    keep[3] = min_channels
    scored = problem.evaluate(keep).similarity
    compressed = problem.compress(keep)
    assert problem.score_network(compressed, keep) == pytest.approx(scored, abs=1e-6)
    closed = made("resnet20", repair="least_squares", min_channels=min_channels)
    assert scored > closed.evaluate(keep).similarity


def test_scores_do_not_depend_on_what_was_scored_before():
    problem, other = (made("resnet20", repair="sequential") for _ in range(2))
    keep, less = uniform(problem), uniform(problem)
    less[4] -= 3
    before = problem.evaluate(keep)
    other.evaluate(less)
    other.evaluate(other.channels)
    assert other.evaluate(keep) == before
    assert other.evaluate(other.channels).similarity == pytest.approx(1.0, abs=1e-9)


def test_networks_that_are_repaired_in_step_are_those_repaired_alone():
    problem = made("resnet20")
    keep, less = uniform(problem), uniform(problem)
    less[4] -= 3
    options = replace(FEW, gauss_newton=1)
    together = problem.finish_all([keep, less], images(16), options)
    for one, (network, _) in zip((keep, less), together, strict=True):
        alone, _ = problem.finish(one, images(16), options)
        for key, tensor in alone.state_dict().items():
            assert torch.equal(tensor, network.state_dict()[key])


def test_networks_are_scored_on_other_images_where_these_are_given():
    network, more = FAMILIES["resnet20"]
    baseline = load_baseline(network, weights="random", input_shape=(3, 32, 32), **more)
    awaken(baseline.network)
    other = images(8, seed=3)
    problem = PruningProblem(baseline, images(32), other, budget=0.6)
    keep = uniform(problem)
    assert (problem.images, problem.score_images) == (32, 8)
    own = PruningProblem(baseline, images(32), budget=0.6)
    assert problem.kept_channels(keep)[0].tolist() == own.kept_channels(keep)[0].tolist()
    features = problem.features(keep)[0]
    assert features.shape[0] == 8
    with pytest.raises(ValueError, match="images have shape"):
        PruningProblem(baseline, images(32), images(8, 16), budget=0.6)


class Shared(nn.Module):
    """A network that calls one layer twice."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 3, 3, padding=1)
        self.last = nn.Linear(3, 4)

    def forward(self, x, scale=None):
        for _ in range(2):
            x = self.second(torch.relu(self.norm(self.first(x))))
        if scale is not None:
            x = x * scale
        return self.last(x.mean((2, 3)))


def test_layers_that_are_called_twice_are_left_alone():
    problem = PruningProblem(awaken(Shared()), images(16, 12), budget=0.7)
    keep = uniform(problem)
    before = problem.compress(keep)
    network, _ = problem.finish(keep, images(16, 12, seed=1), FEW)
    assert torch.equal(network.second.weight, before.second.weight)
    assert not torch.equal(network.last.weight, before.last.weight)


class Plain(Shared):
    """The same without the optional input."""

    def forward(self, x):
        return super().forward(x)


def test_optional_inputs_have_their_defaults_in_the_graph():
    networks = [Shared(), Plain()]
    networks[1].load_state_dict(awaken(networks[0]).state_dict())
    finished = []
    for network in networks:
        problem = PruningProblem(network.eval(), images(16, 12), budget=0.7)
        assert find_obstacle(problem.network) is None
        finished.append(problem.finish(uniform(problem), images(16, 12, seed=1), FEW)[0])
    for key, tensor in finished[0].state_dict().items():
        assert torch.equal(tensor, finished[1].state_dict()[key])


@pytest.mark.gpu
def test_cuda_scores_after_sequential_repair_as_the_cpu_does():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    here, there = (made("resnet20", repair="sequential", device=d) for d in ("cpu", "cuda"))
    keep = uniform(here)
    assert here.evaluate(keep).similarity == pytest.approx(
        there.evaluate(keep).similarity, abs=1e-4
    )


class Broadcasting(nn.Module):
    """A network that adds a parameter and a value that is broadcast, and names a ReLU's input."""

    def __init__(self):
        super().__init__()
        self.first, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()
        self.second, self.pooled = nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(8, 6, 1)
        self.third, self.last = nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 4)
        self.places = nn.Parameter(torch.randn(1, 6, 32, 32))

    def forward(self, x):
        inner = self.relu(input=self.first(x))
        x = torch.relu(self.second(inner) + self.places)
        x = self.third(x) + self.pooled(inner.mean((2, 3), keepdim=True))
        return self.last(torch.relu(x).mean((2, 3)))


@pytest.mark.parametrize("repair", ["least_squares", "sequential"])
def test_parameters_and_broadcast_values_are_added_as_they_are(repair):
    network = awaken(Broadcasting())
    problem = PruningProblem(network, images(32), budget=0.7, repair=repair)
    keep = uniform(problem)
    judge = problem.judge(images(32, seed=5))
    closed = PruningProblem(network, images(32), budget=0.7).compress(keep)
    finished, _ = problem.finish(keep, images(32, seed=1), FEW)
    assert judge(finished) > judge(closed)
    assert judge(problem.compress(keep)) >= judge(closed) - 1e-3


def test_an_interrupted_score_leaves_no_trace(monkeypatch):
    problem = made("resnet20", repair="sequential")
    keep, less = uniform(problem), uniform(problem)
    less[4] -= 3
    expected = problem.evaluate(keep)
    problem.forget()
    walk, steps = Walk.step, []

    def stop(self, index, targets):
        steps.append(index)
        if len(steps) == 30:
            raise KeyboardInterrupt
        walk(self, index, targets)

    monkeypatch.setattr(Walk, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        problem.evaluate(keep)
    assert problem.evaluate(keep) == expected


def test_a_delivery_does_not_depend_on_the_repair_that_scored():
    others, strategy = images(24, seed=5), [4, 3]
    delivered = [
        simple_problem(awaken(plain()), images(16), repair=name).repair_all([strategy], others)[0]
        for name in ("least_squares", "sequential")
    ]
    for one, other in zip(*(network.state_dict().values() for network in delivered), strict=True):
        torch.testing.assert_close(one, other)


class Encoded(nn.Module):
    """Layers inside a module of torch.nn, which a graph shows as one operation."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.last = nn.Linear(16, 5)

    def forward(self, x):
        return self.last(self.encoder(x).mean(1))


def test_layers_behind_a_module_with_cut_layers_inside_are_refitted():
    torch.manual_seed(0)
    inputs, more = (torch.randn(64, 20, 16) for _ in range(2))
    problem = PruningProblem(Encoded().eval(), inputs, budget=0.5)
    keep = uniform(problem)
    (repaired,) = problem.repair_all([keep], more, FEW)
    closed = problem.compress(keep)
    judge = problem.judge(torch.randn(64, 20, 16))
    assert not torch.equal(repaired.last.weight, closed.last.weight)
    assert judge(repaired) > judge(closed)


class Adaptive(nn.LayerNorm):
    """A norm whose scale and shift layers of its own compute, as in a DiT."""

    def __init__(self):
        super().__init__(8, elementwise_affine=False)
        self.widen, self.modulate = nn.Linear(6, 16), nn.Linear(16, 16)

    def forward(self, x, condition):
        scale, shift = self.modulate(self.widen(condition).relu()).chunk(2, -1)
        return super().forward(x) * (1 + scale) + shift


class Modulated(nn.Module):
    """Tokens through such a norm, whose condition is their mean."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.last = nn.Linear(6, 8), Adaptive(), nn.Linear(8, 5)

    def forward(self, x):
        return self.last(self.norm(self.embed(x), x.mean(1, True)).mean(1))


def test_layers_inside_a_norm_are_refitted():
    torch.manual_seed(0)
    inputs, more, judged = (torch.randn(256, 4, 6) for _ in range(3))
    problem = PruningProblem(Modulated().eval(), inputs, judged, budget=0.7, repair="none")
    assert [group.name for group in problem.groups] == ["norm.widen"]
    keep = np.array([6])
    assert find_obstacle(problem.network) is None
    (repaired,) = problem.repair_all([keep], more, FEW)
    merely_cut = problem.compress(keep)
    assert not torch.equal(repaired.norm.modulate.weight, merely_cut.norm.modulate.weight)
    assert problem.score_network(repaired, keep) > problem.score_network(merely_cut, keep)
