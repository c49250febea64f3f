"""Operations whose sizes follow from a strategy are found by running the network."""

from itertools import product

import numpy as np
import torch
from networks_for_tests import awaken, images, plain, simple_problem
from torch import nn

from lfgcl_env.latency import table
from lfgcl_env.latency.operations import find_operations


def found(problem, batch=2):
    candidate = problem.network.candidate()

    def build(keep):
        candidate.install([np.arange(count) for count in keep])
        return candidate.network

    shape = problem.baseline.input_shape
    return find_operations(build, problem.channels, torch.randn(batch, *shape))


def test_sizes_are_those_of_the_cut_network():
    problem = simple_problem(awaken(plain()), images(8))
    operations = found(problem)
    names = [operation.signature.name.split(".")[1] for operation in operations]
    assert names.count("conv2d") == 2
    assert "linear" in names
    second = operations[[i for i, n in enumerate(names) if n == "conv2d"][1]]
    assert [axis.group for axis in second.axes] == [0, 1] or [
        axis.group for axis in second.axes
    ] == [1, 0]
    values = [int(axis.values(np.array([5, 3]))) for axis in second.axes]
    shapes = [size for size in second.signature.sizes(values) if isinstance(size, tuple)]
    assert shapes[:2] == [(2, 5, *shapes[0][2:]), (3, 5, 3, 3)]


def test_operations_run_with_any_sizes():
    for operation in found(simple_problem(awaken(plain()), images(8))):
        name = operation.signature.name.split(".")
        function = getattr(getattr(torch.ops.aten, name[1]), name[2])
        for values in ([1] * len(operation.axes), [axis.full for axis in operation.axes]):
            args, kwargs = operation.signature.arguments(values, "cpu")
            with torch.inference_mode():
                function(*args, **kwargs)


def test_equal_operations_have_equal_texts():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(4, 6)
            self.ends = nn.ModuleList([nn.Linear(6, 4), nn.Linear(6, 4)])

        def forward(self, x):
            x = x + self.ends[0](self.first(x).relu())
            return x + self.ends[1](self.second(x).relu())

    channels = np.array([6, 6])

    def build(keep):
        network = Twice().eval()
        network.first, network.second = (nn.Linear(4, int(k)) for k in keep)
        network.ends = nn.ModuleList([nn.Linear(int(k), 4) for k in keep])
        return network

    operations = find_operations(build, channels, torch.randn(3, 4))
    assert len(operations) == 6
    assert len({operation.signature.text for operation in operations}) == 3
    assert {axis.group for operation in operations for axis in operation.axes} == {0, 1}


def test_what_takes_turns_is_bounded_in_bytes(monkeypatch):
    operations = found(simple_problem(awaken(plain()), images(8)))
    (*_, convolution) = [one for one in operations if "conv2d" in one.signature.name]
    signature, full = convolution.signature, [axis.full for axis in convolution.axes]
    args, _ = signature.arguments(full, "cpu")
    tensors = [one for one in args if isinstance(one, torch.Tensor)]
    assert signature.bytes(full) == sum(one.numel() * one.element_size() for one in tensors)
    knots = tuple((1, count) for count in full)
    points = [(table.Wanted(signature, knots), at) for at in product(*knots)] * 3

    def sizes():
        return [len(chunk) for chunk in table._chunks(points)]

    assert sizes() == [len(points)]
    monkeypatch.setattr(table, "_CHUNK_BYTES", 2 * signature.bytes(full))
    assert sum(sizes()) == len(points)
    assert 1 < max(sizes()) < len(points)
    monkeypatch.setattr(table, "_CHUNK_BYTES", 1)
    assert sizes() == [1] * len(points)
