"""Sessions of ONNX Runtime on a CPU, and the memory that one takes."""

import logging
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lfgcl_env.latency.timing import Call

_CHILD = """
import re, sys
import numpy as np
import onnxruntime as ort

def status(name):
    text = open("/proc/self/status").read()
    return int(re.search(name + r":\\s+(\\d+) kB", text).group(1)) * 1024

inputs = np.load(sys.argv[2])
before = status("VmRSS")
options = ort.SessionOptions()
options.intra_op_num_threads = int(sys.argv[3])
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
for _ in range(2):
    session.run(None, {session.get_inputs()[0].name: inputs})
print(max(status("VmHWM") - before, 0))
"""


def export(network: nn.Module, example: Tensor) -> bytes:
    """Return a network as an ONNX model for batches like an example.

    Args:
        network: in evaluation mode; not changed.
        example: inputs (images, ...).

    Raises:
        ValueError: if it cannot be exported; the message says why.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "network.onnx"
        try:
            # Twenty times as fast as the newer exporter, and what comes out runs as fast.
            torch.onnx.export(network, (example,), str(path), dynamo=False, verbose=False)
        except Exception as error:  # whatever the exporter and its libraries raise
            reason = str(error).strip().split("\n")[0][:200]
            raise ValueError(
                f"the network cannot be exported to ONNX ({type(error).__name__}: {reason})"
            ) from error
        return path.read_bytes()


def start(model: bytes, example: Tensor, threads: int) -> Call:
    """Return what runs a model on an example.

    Args:
        model: an ONNX model.
        example: its inputs.
        threads: that compute.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: example.detach().cpu().numpy()}
    names = [output.name for output in session.get_outputs()]
    return lambda: session.run(names, feed)


def peak_of_process(model: bytes, example: Tensor, threads: int) -> int | None:
    """Return how far a process of its own grows when it loads and runs a model [bytes].

    None where the operating system does not tell, which all but Linux do not.
    """
    if not Path("/proc/self/status").exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        network, inputs = Path(folder) / "network.onnx", Path(folder) / "inputs.npy"
        network.write_bytes(model)
        np.save(inputs, example.detach().cpu().numpy())
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, str(network), str(inputs), str(threads)],
            capture_output=True,
            text=True,
            check=False,
        )
    return int(done.stdout) if done.returncode == 0 else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on its own progress to itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
