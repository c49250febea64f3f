"""int8 models: smaller, near their float model, and never half-written."""

import numpy as np
import pytest
import torch
from networks_for_tests import awake_baseline, images, plain

from lfgcl_env.export import OnnxNetwork, compare, export_network, int8, quantize
from lfgcl_env.images import LabelledImages, top1

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A ResNet-20 and its int8 model."""
    folder = tmp_path_factory.mktemp("int8")
    network = awake_baseline("resnet20").network
    whole = export_network(network, images(8), folder / "float.onnx", facts={"network": "r20"}).path
    return whole, quantize(whole, images(40), folder / "int8.onnx").path


def test_int8_is_a_third_of_float_and_near_it(exported):
    whole, small = exported
    found = compare(whole, small, images(64, seed=1))
    assert found.images == 64
    assert found.bytes == (whole.stat().st_size, small.stat().st_size)
    assert found.bytes[1] < 0.4 * found.bytes[0]
    assert found.agreement > 85
    assert 0 < found.error < 0.3
    assert sorted(found.milliseconds) == [1, 32]


def test_a_model_agrees_with_itself(exported):
    whole, _ = exported
    found = compare(whole, whole, images(8))
    assert (found.agreement, found.error) == (100, 0)


def test_weights_have_a_scale_for_every_channel_and_activations_one(exported):
    model = onnx.load(exported[1])
    sizes = {one.name: one.dims for one in model.graph.initializer}
    kinds = {one.name: one.data_type for one in model.graph.initializer}
    scales = [
        (kinds[node.input[0]], list(sizes[node.input[1]]))
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in sizes
    ]
    weights = [shape for kind, shape in scales if kind == onnx.TensorProto.INT8]
    assert len(weights) >= 19
    assert all(shape and shape[0] > 1 for shape in weights)
    given = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert all(not sizes[node.input[1]] for node in given)
    assert {one.key: one.value for one in model.metadata_props}["network"] == "r20"


def test_an_onnx_file_is_tested_as_a_network(exported):
    network = awake_baseline("resnet20").network
    inputs = images(20, seed=2)
    labelled = LabelledImages(inputs, network(inputs).argmax(1), "own labels")
    assert top1(OnnxNetwork(exported[0]), labelled) == 100
    assert top1(OnnxNetwork(exported[1]), labelled) > 70


def test_networks_without_classes_have_an_error_and_no_agreement(tmp_path):
    network = torch.nn.Sequential(plain(), torch.nn.Linear(5, 1)).eval()
    whole = export_network(network, images(4), tmp_path / "float").path
    found = compare(whole, quantize(whole, images(8), tmp_path / "int8").path, images(8, seed=1))
    assert found.agreement is None
    assert np.isfinite(found.error)


def test_what_cannot_be_quantised_says_why_and_leaves_no_file(exported, tmp_path):
    with pytest.raises(FileNotFoundError, match="no ONNX model at"):
        quantize(tmp_path / "nothing", images(4), tmp_path / "int8")
    damaged = tmp_path / "damaged"
    damaged.write_bytes(exported[0].read_bytes()[:1000])
    with pytest.raises(ValueError, match="ONNX Runtime does not take the model"):
        quantize(damaged, images(4), tmp_path / "int8")
    with pytest.raises(ValueError, match="cannot quantise"):
        quantize(exported[0], images(4, size=16)[:, :1], tmp_path / "int8")
    with pytest.raises(ValueError, match="Did you mean 'minmax'"):
        quantize(exported[0], images(4), tmp_path / "int8", "minmaxx")
    assert list(tmp_path.iterdir()) == [damaged]


def test_where_one_calibration_fails_the_other_is_taken(exported, tmp_path, monkeypatch):
    usual = int8._quantized

    def fails(model, inputs, calibration, advance):
        if calibration == "percentile":
            raise MemoryError("too many bins")
        return usual(model, inputs, calibration, advance)

    monkeypatch.setattr(int8, "_quantized", fails)
    done = quantize(exported[0], images(8), tmp_path / "int8")
    assert (done.calibration, list(done.errors)) == ("minmax", ["minmax"])
    with pytest.raises(ValueError, match="too many bins"):
        quantize(exported[0], images(8), tmp_path / "none", "percentile")
    assert not (tmp_path / "none").exists()


def test_the_calibration_that_is_nearer_to_float_is_taken(tmp_path):
    network = plain()
    whole = export_network(network.eval(), images(4), tmp_path / "float").path
    rare = images(64)
    rare[0, :, 0, 0] = 300.0  # a few values for which all others would have few steps
    errors = {
        one: quantize(whole, rare, tmp_path / one, one).errors[one]
        for one in ("minmax", "percentile")
    }
    done = quantize(whole, rare, tmp_path / "auto")
    assert done.errors == errors
    assert done.calibration == min(errors, key=errors.get)
    assert done.path.read_bytes() == (tmp_path / done.calibration).read_bytes()
    assert errors["minmax"] != errors["percentile"]
