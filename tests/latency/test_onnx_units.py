"""Operations of networks in ONNX Runtime: measured, known to be free, or refused."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lfgcl_env.latency.onnx_units import in_onnx
from lfgcl_env.latency.operations import find_operations

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


class Between(nn.Module):
    """A function of the channels between two convolutions."""

    def __init__(self, channels, function):
        super().__init__()
        self.into = nn.Conv2d(3, int(channels), 1)
        self.function = function(int(channels))
        self.out = nn.Conv2d(int(channels), 2, 1)

    def forward(self, x):
        return self.out(self.function(self.into(x)))


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


def attend(x):
    heads = x.flatten(2).unsqueeze(1).transpose(2, 3)
    return F.scaled_dot_product_attention(heads, heads, heads).transpose(2, 3).reshape(x.shape)


def product(x):
    flat = x.flatten(2)
    return torch.bmm(torch.bmm(flat, flat.transpose(1, 2)), flat).reshape(x.shape)


MEASURED = {
    "attention": lambda n: Call(attend),
    "bmm": lambda n: Call(product),
    "matmul": lambda n: Call(lambda x: x @ x),
    "mul": lambda n: Call(lambda x: x * x.mean((2, 3), keepdim=True)),
    "cat": lambda n: Call(lambda x: torch.cat([x, x], 1)[:, : x.shape[1]]),
    "same": lambda n: nn.Conv2d(n, n, 4, padding="same", dilation=2),
    "valid": lambda n: nn.Conv2d(n, n, 1, padding="valid"),
    "silu": lambda n: nn.SiLU(inplace=True),
    "hardswish": lambda n: nn.Hardswish(),
    "transposed": lambda n: nn.ConvTranspose2d(n, n, 3, padding=1),
    "pool": lambda n: nn.MaxPool2d(3, 1, 1),
}
FREE = {
    "batch_norm": nn.BatchNorm2d,
    "relu": lambda n: nn.ReLU(inplace=True),
    "add": lambda n: Call(lambda x: x + x),
    "dropout": lambda n: nn.Dropout(),
    "view": lambda n: Call(lambda x: x.reshape(len(x), -1, 8, 8)),
}


def units(function):
    """Return the units of what is between the convolutions."""
    whole = np.array([4])

    def build(keep):
        return Between(keep[0], function).eval()

    operations = find_operations(build, whole, torch.randn(2, 3, 8, 8))[1:-1]
    return [in_onnx(one.signature, whole, 1) for one in operations]


@pytest.mark.parametrize("name", MEASURED)
def test_an_operation_is_measured_by_the_difference_of_two_sessions(name):
    found = [unit for unit in units(MEASURED[name]) if unit]
    assert found
    for unit in found:
        assert sum(weight for _, weight in unit) == 0
        for call, _ in unit:
            assert all(np.isfinite(output).all() for output in call())


@pytest.mark.parametrize("name", FREE)
def test_what_the_runtime_fuses_takes_no_time(name):
    assert not any(units(FREE[name]))


def test_padding_to_the_same_size_keeps_the_size():
    (unit,) = units(MEASURED["same"])
    assert {call()[0].shape for call, _ in unit} == {(2, 4, 8, 8)}


def test_an_operation_that_cannot_be_exported_is_refused():
    with pytest.raises(ValueError, match=r"does not know aten.special_bessel_j0.*pytorch"):
        units(lambda n: Call(torch.special.bessel_j0))
