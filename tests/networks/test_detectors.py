"""torchvision's detectors are pruned by what they compute before they pick boxes."""

import pytest
import torch
from small_detectors import DETECTORS, SIDE, detector
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from unusual_networks import noise

import lfgcl_env
from lfgcl_env.networks import Normalization, load_baseline
from lfgcl_env.networks.detectors import dense_outputs
from lfgcl_env.networks.outputs import named_outputs
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.structure.layers import counting_flops
from lfgcl_env.recovery import RecoveryOptions

SHAPE = (3, SIDE, SIDE)


def images(count: int, seed: int = 0) -> Tensor:
    return noise(count, *SHAPE, seed=seed)


def dense(network: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    kind = dense_outputs(network)
    assert kind is not None
    with torch.inference_mode():
        return named_outputs(kind.run(network, network.forward, inputs))


@pytest.fixture(scope="module", params=DETECTORS)
def problem(request):
    return PruningProblem(detector(request.param), images(16), budget=0.6)


def halved(problem: PruningProblem) -> list[int]:
    return problem.project([0.5] * len(problem.groups)).tolist()


def test_it_is_cut_as_it_was_scored_and_counted(problem):
    keep = halved(problem)
    plain = PruningProblem(problem.baseline, images(16), budget=0.6, repair="none")
    cut = plain.compress(keep)
    assert plain.score_network(cut, keep) == pytest.approx(plain.evaluate(keep).similarity)
    assert "forward" not in vars(cut)
    kind = problem.baseline.feeding
    with counting_flops() as counter:
        kind.run(cut, cut.forward, images(1))
    assert counter.get_total_flops() == 2 * problem.cost(keep).macs
    assert sum(p.numel() for p in cut.parameters()) == problem.cost(keep).params


def test_what_is_handed_over_detects_and_comes_back_from_its_file(problem, tmp_path, request):
    keep = halved(problem)
    network, evaluation = problem.finish(keep, images(32, seed=1))
    assert type(network) is type(problem.baseline.network)
    cut = problem.cut(keep)
    assert evaluation.similarity > problem.score_network(cut, keep)
    judge = problem.judge(images(64, seed=5))
    assert judge(network) > judge(cut)
    with torch.inference_mode():
        (found,) = network([torch.rand(3, 40, 30)])
    assert {"boxes", "scores", "labels"} <= found.keys()
    path = problem.save(tmp_path / "pruned.safetensors", keep, network)
    builder = DETECTORS[request.node.callspec.params["problem"]]
    loaded = lfgcl_env.load_pruned(path, builder)
    wanted, given = (dense(one, images(2, seed=2)) for one in (network, loaded))
    assert all(torch.equal(given[place], one) for place, one in wanted.items())


def test_heads_in_front_of_boxes_are_pruned_and_compared(problem, request):
    names = [group.name for group in problem.groups]
    assert any(name.startswith("backbone.") for name in names)
    if request.node.callspec.params["problem"] != "SSD":  # whose heads are one layer
        assert any(name.startswith(("head.", "rpn.head.")) for name in names)
    assert len(problem.baseline.outputs) >= 2


def test_the_module_itself_is_left_alone():
    given = detector("RetinaNet")
    before = {key: tensor.clone() for key, tensor in given.state_dict().items()}
    problem = PruningProblem(given, images(8), budget=0.6)
    problem.finish(halved(problem), images(8))
    assert "forward" not in vars(given)
    assert all(torch.equal(before[key], tensor) for key, tensor in given.state_dict().items())
    with torch.inference_mode():
        assert given([torch.rand(*SHAPE)])[0].keys() == {"boxes", "scores", "labels"}


def test_images_are_normalised_as_it_does_itself():
    given = detector("FCOS")
    given.transform.image_mean = [0.1, 0.2, 0.3]
    baseline = load_baseline(given, input_shape=SHAPE)
    assert baseline.normalization == Normalization((0.1, 0.2, 0.3), (0.229, 0.224, 0.225))


def test_a_score_of_ones_own_sees_it_detect():
    """With the pixels that it normalises itself."""
    seen = []

    def boxes(network: nn.Module, shown: Tensor) -> float:
        (found,) = network([shown[0]])
        seen.append((found.keys(), shown))
        return float(len(found["boxes"]))

    given = detector("SSD")
    baseline = load_baseline(given, input_shape=SHAPE)
    pixels = noise(16, *SHAPE).sigmoid()
    problem = PruningProblem(baseline, baseline.normalization.apply(pixels), budget=0.6)
    network, _ = problem.finish(halved(problem), images(16), score=boxes)
    assert "forward" not in vars(network)
    torch.testing.assert_close(seen[0][1], pixels)
    options = RecoveryOptions(epochs=1, epoch_images=64)
    done = problem.recover(network, images(64), options, score=boxes)
    assert done.before > 0
    assert len(seen) >= 5
    assert {frozenset(keys) for keys, _ in seen} == {frozenset({"boxes", "scores", "labels"})}


def test_it_is_trained_by_its_dense_outputs():
    problem = PruningProblem(detector("RetinaNet"), images(16), budget=0.6)
    keep = halved(problem)
    cut = problem.cut(keep)
    options = RecoveryOptions(epochs=3, epoch_images=256, batch_size=16, learning_rate=0.02)
    done = problem.recover(cut, images(128), options, watched=images(32, seed=3))
    assert done.better
    assert done.after > done.before
    assert "forward" not in vars(done.network)


def test_maps_of_several_sizes_are_read_at_a_layer_that_they_share():
    problem = PruningProblem(
        detector("Faster R-CNN"), images(16), budget=0.6, features="rpn.head.conv.0.0"
    )
    assert 0 < problem.evaluate(halved(problem)).similarity < 1
    assert problem.evaluate([group.channels for group in problem.groups]).similarity == 1


def test_a_baseline_s_own_module_is_called_as_a_detector_again():
    problem = PruningProblem(detector("RetinaNet"), images(16), budget=0.6)
    again = PruningProblem(problem.baseline.network, images(16), budget=0.6)
    assert again.baseline.outputs == problem.baseline.outputs
    assert again.evaluate(halved(again)) == problem.evaluate(halved(problem))


class Own(RetinaNet):
    """Returns maps itself."""

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(images)["0"]


def test_detectors_with_a_forward_of_their_own_are_called_by_it():
    given = detector("RetinaNet")
    given.__class__ = Own
    baseline = load_baseline(given, input_shape=SHAPE)
    assert baseline.feeding is None
    assert baseline.outputs == {"": (16, 8, 8)}


def test_the_layers_behind_regions_are_a_network_of_their_own():
    given = detector("Faster R-CNN")
    heads = given.roi_heads
    problem = PruningProblem(
        nn.Sequential(heads.box_head, heads.box_predictor), noise(32, 16, 3, 3), budget=0.5
    )
    assert [group.name for group in problem.groups] == ["0.fc6", "0.fc7"]
    network, _ = problem.finish(halved(problem), noise(64, 16, 3, 3, seed=1))
    heads.box_head, heads.box_predictor = network
    with torch.inference_mode():
        assert given([torch.rand(*SHAPE)])[0].keys() == {"boxes", "scores", "labels"}
