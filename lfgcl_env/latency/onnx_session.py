"""Sessions of ONNX Runtime on a CPU, and the memory that one takes."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lfgcl_env.edge.quiet import quiet
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


def export(network: nn.Module, *examples: Tensor) -> bytes:
    """Return a network as an ONNX model for batches like an example.

    Args:
        network: in evaluation mode; not changed.
        examples: its inputs, each (images, ...).

    Raises:
        ValueError: if it cannot be exported; the message says why.
        OSError: if the disk is full, ...
    """
    # The older exporter is twenty times as fast, and what comes out runs as fast, but it lacks
    # operations, such as those of a frozen TransformerEncoder.
    for newer in (False, True):
        try:
            return _export(network, examples, newer)
        except OSError:
            raise
        except Exception as error:  # whatever the exporter and its libraries raise
            failure = error
    reason = str(failure.__cause__ or failure).strip().split("\n")[0][:200]
    raise ValueError(
        f"the network cannot be exported to ONNX ({type(failure).__name__}: {reason})"
    ) from failure


def _export(network: nn.Module, examples: Sequence[Tensor], newer: bool) -> bytes:
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "network.onnx"
        torch.onnx.export(
            network,
            tuple(examples),
            str(path),
            dynamo=newer,
            external_data=False,
            verbose=False,
        )
        return path.read_bytes()


def start(model: bytes, examples: Sequence[Tensor], threads: int) -> Call:
    """Return what runs a model on examples.

    Args:
        model: an ONNX model.
        examples: one for every input, in their order.
        threads: that compute.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads of a session go on spinning after a run, at the cost of whichever session is next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = [one.name for one in session.get_inputs()]
    arrays = [example.detach().cpu().numpy() for example in examples]
    feed = dict(zip(inputs, arrays, strict=True))
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
    """Keep to itself what the exporters say of their progress and of what they cannot export."""
    with quiet():
        show = torch._C._jit_onnx_log
        # Where the older one fails, it prints the whole graph whatever it is told.
        torch._C._jit_onnx_log = lambda *_: None
        try:
            yield
        finally:
            torch._C._jit_onnx_log = show
