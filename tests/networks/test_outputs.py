"""What networks return: names of tensors, what can be compared, and classes."""

import pytest
import torch
from torch import Tensor, nn
from unusual_networks import SEVERAL, UNUSUAL, Detecting, Forked, made

from lfgcl_env.networks import load_baseline
from lfgcl_env.networks.outputs import class_scores, holds_classes, named_outputs


class Do(nn.Module):
    """Any function as a network."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor):
        return self.function(x)


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_tensors_are_named_by_their_places(kind):
    give, names = SEVERAL[kind]
    boxes, logits = torch.zeros(2, 4), torch.ones(2, 10)
    outputs = named_outputs(give(boxes, logits))
    assert list(outputs) == names
    assert [one.shape[1] for one in outputs.values()] == [4, 10]


def test_scalars_whole_numbers_and_whatever_is_no_tensor_are_left_out():
    returned = {"loss": torch.tensor(1.0), "labels": torch.arange(2), "text": "yes", "none": None}
    assert named_outputs(returned | {"out": torch.zeros(2, 1)}).keys() == {"out"}


@pytest.mark.parametrize("name", UNUSUAL)
def test_networks_with_any_inputs_and_outputs_are_loaded(name):
    network, inputs = made(name)
    baseline = load_baseline(network, input_shape=inputs.shape[1:])
    assert baseline.input_shape == tuple(inputs.shape[1:])
    with torch.no_grad():
        returned = named_outputs(network(inputs))
    assert {n: (len(inputs), *s) for n, s in baseline.outputs.items()} == {
        n: tuple(output.shape) for n, output in returned.items()
    }


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        *[("sound", 5), ("volume", 5), ("table", 5), ("two heads", 14)],
        *[("segmentation", None), ("number", None), ("flat number", None)],
        *[(f"two heads, {kind}", None) for kind in SEVERAL],
    ],
)
def test_only_a_vector_of_scores_has_classes(name, classes):
    network, inputs = made(name)
    assert load_baseline(network, input_shape=inputs.shape[1:]).num_classes == classes


def test_the_logits_may_stand_in_a_dictionary():
    network = Forked(lambda boxes, logits: {"logits": logits}).eval()
    assert load_baseline(network, input_shape=(3, 8, 8)).num_classes == 10


def test_maps_hold_classes_and_sequences_may_not():
    assert holds_classes((2,))
    assert holds_classes((4, 8, 8))
    assert holds_classes((4, 8, 8, 8))
    assert not holds_classes((1, 8, 8))
    assert not holds_classes((16, 128))


def test_what_differs_in_number_or_size_from_image_to_image_is_no_output():
    assert load_baseline(Detecting().eval(), input_shape=(3, 8, 8)).outputs == {}
    constant = Do(lambda x: (torch.ones(7, 4), x.flatten(1)))
    assert load_baseline(constant, input_shape=(3, 2, 2)).outputs == {"1": (12,)}


def test_a_network_for_other_inputs_is_refused():
    with pytest.raises(ValueError, match=r"does not take inputs of shape \(3,\).*input_shape"):
        load_baseline(nn.Linear(4, 2).eval(), input_shape=(3,))


@pytest.mark.parametrize("give", [lambda x: "yes", lambda x: x.sum(), lambda x: x.long()])
def test_a_network_without_tensors_is_refused(give):
    with pytest.raises(ValueError, match="without floating-point tensors") as refused:
        load_baseline(Do(give), input_shape=(3, 4, 4))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("shape", [(), (3, 4, 5, 6, 7), (0,), (2.5,), "32"])
def test_shapes_of_inputs_are_one_to_four_sizes(shape):
    with pytest.raises(ValueError, match="input_shape must be 1 to 4 positive whole numbers"):
        load_baseline(nn.Flatten(), input_shape=shape)


def test_scores_of_classes_are_found_beside_other_outputs():
    logits = torch.randn(4, 5)
    assert class_scores({"logits": logits, "temperature": torch.ones(1)}) is logits
    for output in (torch.ones(4, 1), (logits, logits)):
        with pytest.raises(ValueError, match="one tensor"):
            class_scores(output)


class Drawing(nn.Module):
    """A variational encoder that draws its latents, always or in training alone."""

    def __init__(self, always: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
        self.always = always

    def forward(self, x: Tensor) -> Tensor:
        mean, spread = self.layers(x).chunk(2, 1)
        drawn = torch.randn_like(mean) * torch.exp(spread)
        return mean + drawn if self.always or self.training else mean


class Counting(nn.Module):
    """Adds up what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.sum = nn.Linear(12, 5), 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.sum = self.sum + self.layer(x.flatten(1))[:2]
        return self.sum


class Seldom(nn.Module):
    """Leaves its layer out in one of five calls, or gives NaN then."""

    def __init__(self, left: float) -> None:
        super().__init__()
        self.layer, self.left = nn.Linear(12, 5), left

    def forward(self, x: Tensor) -> Tensor:
        found = self.layer(x.flatten(1))
        return found if torch.rand(()) > 0.2 else self.left * found


REPEATING = [lambda: Drawing(always=True), Counting, lambda: Seldom(0.0), lambda: Seldom(torch.nan)]


@pytest.mark.parametrize("build", REPEATING)
def test_networks_that_do_not_repeat_themselves_are_refused_with_the_way_out(build):
    with pytest.raises(ValueError, match="gives other outputs when it is called again"):
        load_baseline(build().eval(), input_shape=(3, 2, 2))


def test_networks_that_draw_numbers_in_training_alone_are_taken():
    network, state = Drawing(always=False).eval(), torch.get_rng_state()
    assert load_baseline(network, input_shape=(3, 2, 2)).outputs == {"": (2,)}
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("draws", "calls"), [(False, 3), (True, 17)])
def test_networks_are_called_often_only_if_they_draw(draws, calls):
    called = []

    def count(x: Tensor) -> Tensor:
        called.append(torch.rand(()) if draws else None)
        return x.flatten(1)

    load_baseline(Do(count).eval(), input_shape=(3, 2, 2))
    assert len(called) == calls


class InPlace(nn.Module):
    """Works on its input itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        return self.layer(x.flatten(1))


def test_networks_that_change_their_input_are_taken():
    assert load_baseline(InPlace().eval(), input_shape=(3, 2, 2)).outputs == {"": (5,)}
