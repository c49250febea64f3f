"""Baselines: structures, own networks, those of others, and what is refused."""

import json

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lfgcl_env.networks import (
    IMAGENET,
    Normalization,
    build_network,
    load_baseline,
    network_names,
)
from lfgcl_env.networks.builders import BUILDERS


def small(num_classes: int = 4) -> nn.Module:
    """A network of one's own."""
    return nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, num_classes)
    ).eval()


def not_a_network() -> str:
    return "resnet56"


OWN = f"{__name__}:small"


def macs(network: nn.Module, *shape: int) -> int:
    with FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, *shape))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet20", 40_551_040),
        ("resnet32", 68_862_592),
        ("resnet44", 97_174_144),
        ("resnet56", 125_485_696),
        ("resnet110", 252_887_680),
        ("vgg16_bn", 313_725_952),
        ("mobilenet_v2", 87_976_448),
        ("resnet20_cifar100", 40_556_800),
    ],
)
def test_macs_and_outputs(name, expected):
    classes = 100 if name.endswith("_cifar100") else 10
    network = build_network(name, num_classes=7)
    head = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    assert macs(network, 3, 32, 32) == expected - (classes - 7) * head.in_features
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert build_network(name)(torch.zeros(2, 3, 32, 32)).shape == (2, classes)


def test_every_name_has_a_test_of_its_macs():
    assert len(network_names()) == 8


def test_option_b_adds_one_convolution_where_the_shape_changes():
    a, b = build_network("resnet20"), build_network("resnet20", shortcut="B")
    extra = set(dict(b.named_parameters())) - set(dict(a.named_parameters()))
    assert {key.split(".shortcut")[0] for key in extra} == {"layer2.0", "layer3.0"}
    assert macs(b, 3, 32, 32) - macs(a, 3, 32, 32) == 2 * 16 * 32 * 16**2


def test_zero_padding_keeps_the_channels_in_the_middle():
    block = build_network("resnet20").layer2[0]
    x = torch.rand(1, 16, 4, 4)
    out = block.shortcut(x)
    assert out.shape == (1, 32, 2, 2)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


@pytest.mark.parametrize("name", ["resnet20", "vgg16_bn", "mobilenet_v2"])
def test_forward_changes_neither_input_nor_layer_outputs(name):
    network = load_baseline(name, "random").network
    x = torch.randn(2, 3, 32, 32)
    kept = x.clone()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            layer.register_forward_hook(lambda _, __, out: seen.append((out, out.clone())))
    network(x)
    assert torch.equal(x, kept)
    assert all(torch.equal(out, copy) for out, copy in seen)


def test_random_weights_are_seeded_and_leave_the_global_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, same, other = (load_baseline("resnet20", "random", seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.network.conv1.weight, same.network.conv1.weight)
    assert not torch.equal(one.network.conv1.weight, other.network.conv1.weight)


def test_a_baseline_can_be_rebuilt_from_its_name_and_arguments():
    baseline = load_baseline("resnet20", "random", num_classes=100, shortcut="B")
    arguments = json.loads(json.dumps(baseline.arguments))
    rebuilt = build_network(baseline.name, **arguments)
    rebuilt.load_state_dict(baseline.network.state_dict())
    assert (baseline.num_classes, baseline.input_shape) == (100, (3, 32, 32))
    assert not baseline.network.training


# Networks without published weights


@pytest.fixture
def unpublished(monkeypatch):
    """A network of the package that nobody has published weights of."""
    monkeypatch.setitem(BUILDERS, "tiny", small)
    return "tiny"


def test_a_network_without_published_weights_has_random_ones_and_those_of_files(
    unpublished, tmp_path
):
    baseline = load_baseline(unpublished, "random")
    assert (baseline.name, baseline.weights, baseline.normalization) == ("tiny", "random", None)
    path = tmp_path / "own.pt"
    torch.save(small().state_dict(), path)
    assert load_baseline(unpublished, path).weights == str(path)
    for weights in ("published", "embedded"):
        with pytest.raises(ValueError, match=r"no.* weights of tiny .*some: .*resnet20"):
            load_baseline(unpublished, weights)


# Networks of others


def test_an_own_function_by_name_and_itself():
    for network in (OWN, small):
        baseline = load_baseline(network, num_classes=5)
        assert (baseline.name, baseline.arguments) == (OWN, {"num_classes": 5})
        assert (baseline.num_classes, baseline.weights) == (5, "given")
        assert baseline.normalization is None


def test_a_function_without_an_importable_name_has_none():
    assert load_baseline(lambda: small()).name is None


def test_an_own_function_with_weights_from_a_file(tmp_path):
    path = tmp_path / "own.pt"
    state = small().state_dict()
    torch.save(state, path)
    baseline = load_baseline(OWN, path)
    assert torch.equal(baseline.network[0].weight, state["0.weight"])
    assert baseline.weights == str(path)


def test_a_module_in_training_mode_is_copied_and_another_is_not():
    training, ready = small().train(), small()
    baseline = load_baseline(training)
    assert training.training
    assert baseline.network is not training
    assert not baseline.network.training
    assert load_baseline(ready).network is ready
    assert (baseline.name, baseline.weights) == (None, "given")


def test_a_module_keeps_its_own_weights():
    with pytest.raises(ValueError, match="cannot be put into a module"):
        load_baseline(small(), "random")
    with pytest.raises(ValueError, match="takes no arguments"):
        load_baseline(small(), num_classes=3)


def test_torchvision_networks():
    baseline = load_baseline("torchvision:squeezenet1_1", "random", input_shape=(3, 64, 64))
    assert (baseline.num_classes, baseline.normalization) == (1000, IMAGENET)
    assert build_network(baseline.name, num_classes=3)(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    assert load_baseline("torchvision:squeezenet1_1", "random").input_shape == (3, 224, 224)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("resnet65", r"Did you mean 'resnet56'\?"),
        ("resnet18", r"Did you mean 'torchvision:resnet18'\?"),
        ("torchvision:resnet51", r"Did you mean 'resnet50'\?"),
        ("torchvision:fcos_resnet50_fpn", "give 'torchvision.models.detection:fcos_resnet50_fpn'"),
        ("torchvision:fcn_resnet50", "give 'torchvision.models.segmentation:fcn_resnet50'"),
        ("no.such.package:build", "cannot import 'no.such.package'"),
        (f"{__name__}:smal", r"Did you mean 'small'\?"),
        (f"{__name__}:OWN", "not callable"),
        (f"{__name__}:not_a_network", "returned a str"),
        (3, "neither a name"),
    ],
)
def test_unknown_networks_are_refused_with_the_nearest(network, message):
    with pytest.raises(ValueError, match=message):
        load_baseline(network)


@pytest.mark.parametrize("network", ["resnet20", OWN, "torchvision:resnet18"])
def test_unknown_arguments_are_refused(network):
    with pytest.raises(ValueError, match="num_clases"):
        load_baseline(network, "random", num_clases=3)


@pytest.mark.parametrize("classes", [0, -1, 2.5, "10", True, 10**12])
@pytest.mark.parametrize("network", ["resnet20", "vgg16_bn", "torchvision:resnet18"])
def test_a_number_of_classes_that_cannot_be_is_refused(network, classes):
    with pytest.raises(ValueError, match="num_classes must be a whole number from 1 to 100,000"):
        load_baseline(network, "random", num_classes=classes)


def test_weights_are_no_argument_of_a_torchvision_builder():
    with pytest.raises(ValueError, match="chosen by the argument 'weights'"):
        build_network("torchvision:resnet18", weights="DEFAULT")


def failing(error: str = "KeyError") -> nn.Module:
    raise {"KeyError": KeyError("width"), "RuntimeError": RuntimeError("a\nb")}[error]


class Failing(nn.Module):
    def forward(self, x):
        raise KeyError("key")


class Uncopyable(nn.Module):
    def __deepcopy__(self, memo):
        raise TypeError("cannot copy a lock")


@pytest.mark.parametrize(
    ("network", "arguments", "complaint"),
    [
        (f"{__name__}:failing", {}, "cannot be built: 'width'"),
        (failing, {"error": "RuntimeError"}, "cannot be built with .*: a$"),
        (Failing().eval(), {}, r"Failing does not take inputs of shape .* \('key'\)"),
        (Uncopyable().train(), {}, r"Uncopyable cannot be copied \(cannot copy a lock\)"),
        ("torchvision:resnet18", {"groups": "2"}, "torchvision:resnet18 cannot be built with"),
    ],
)
def test_what_others_code_raises_becomes_one_sentence(network, arguments, complaint):
    weights = "published" if isinstance(network, nn.Module) else "random"
    with pytest.raises(ValueError, match=complaint) as refused:
        load_baseline(network, weights, **arguments)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"weights": 3},
        {"weights": None},
        {"seed": "0"},
        {"seed": -1},
        {"seed": 2**64},
        {"seed": 1.5},
    ],
)
def test_weights_and_seeds_of_a_wrong_type_are_refused(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be a "):
        load_baseline("resnet20", **({"weights": "random"} | arguments))


def test_what_is_no_depth_is_refused():
    from lfgcl_env.networks import CifarResNet

    with pytest.raises(ValueError, match="depth 21 is not 6 n"):
        CifarResNet(21)


@pytest.mark.parametrize(
    "shape", [(3, 32), (3, 0, 32), (1, 32, 32), 32, "abc", (3, 32, 2.5), (3, 10**5, 10**5)]
)
def test_an_input_shape_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match="input"):
        load_baseline("resnet20", "random", input_shape=shape)


# Normalization


def test_normalization_is_channel_wise():
    normalization = Normalization((0.0, 0.5), (1.0, 0.25))
    images = torch.ones(1, 2, 1, 1)
    assert normalization.apply(images).flatten().tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="do not have the 2 channels"):
        normalization.apply(torch.ones(1, 3, 1, 1))


@pytest.mark.parametrize(
    "value",
    [
        ((0.5,), (0.0,)),
        ((0.5,), (1.0, 1.0)),
        ((float("nan"),), (1.0,)),
        0.5,
        (0.5, 0.5),
        "ab",
        (),
        ((10**400,), (1.0,)),
    ],
)
def test_what_is_no_normalization_is_refused(value):
    with pytest.raises(ValueError, match="normalization"):
        load_baseline("resnet20", "random", normalization=value)
