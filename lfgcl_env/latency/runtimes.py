"""Where networks are run to be measured: PyTorch on a CPU or GPU, ONNX Runtime on a CPU."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import torch
from safetensors.torch import save
from torch import Tensor, nn

from lfgcl_env.edge.choices import check_choice
from lfgcl_env.latency.live_tensors import peak_bytes
from lfgcl_env.latency.onnx_session import export, peak_of_process, start
from lfgcl_env.latency.timing import Call, Clock
from lfgcl_env.networks.copying import copy_network


@dataclass(frozen=True)
class Prepared:
    """A network ready to be run on one batch.

    Attributes:
        call: runs it once.
        file_bytes: of the file that the runtime loads.
        peak_bytes: measures memory, see the runtime's ``memory``; None where it cannot.
    """

    call: Call
    file_bytes: int
    peak_bytes: Callable[[], int | None]


@dataclass(frozen=True)
class Runtime:
    """How networks are run.

    Attributes:
        name: of the runtime.
        memory: how peak memory is measured, in words.
        missing: why it cannot be used here; None where it can.
        prepare: makes a network ready, given an example of its inputs and a number of threads.
        idle: waits until everything begun is done.
    """

    name: str
    memory: str
    missing: Callable[[], str | None]
    prepare: Callable[[nn.Module, Tensor, int], Prepared]
    idle: Call = lambda: None

    def clock(self, threads: int) -> Clock:
        """Return the clock that other programs disturb least.

        Args:
            threads: that compute. One thread of a processor has a clock of its own, which stands
                while others compute on a busy machine.
        """
        alone = threads == 1 and self.name != "cuda"
        return time.thread_time if alone else time.perf_counter


@contextmanager
def on_threads(threads: int) -> Iterator[None]:
    """Let PyTorch compute on so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def available(names: list[str] | None = None) -> list[Runtime]:
    """Return runtimes that can be used here.

    Args:
        names: those wanted; None for all that can be used.

    Raises:
        ValueError: for an unknown name.
        ImportError: if one that is wanted cannot be used; the message says why.
    """
    if names is None:
        return [runtime for runtime in RUNTIMES.values() if runtime.missing() is None]
    return [usable(name) for name in dict.fromkeys(names)]


def usable(name: str) -> Runtime:
    """Return a runtime by its name, see :func:`available`."""
    runtime = RUNTIMES[check_choice(name, RUNTIMES, "runtime")]
    if (reason := runtime.missing()) is not None:
        raise ImportError(f"runtime {name!r} cannot be used: {reason}")
    return runtime


def _on_cpu(network: nn.Module, example: Tensor, threads: int) -> Prepared:
    own = copy_network(network).eval()
    return Prepared(
        _forward(own, example), _size_of_weights(own), partial(peak_bytes, own, example)
    )


def _on_gpu(network: nn.Module, example: Tensor, threads: int) -> Prepared:
    size = _size_of_weights(network)
    before = torch.cuda.memory_allocated()
    own, inputs = copy_network(network).eval().cuda(), example.cuda()
    others = torch.cuda.memory_allocated() - before  # its own weights and inputs
    call = _forward(own, inputs)

    def peak() -> int:
        call()
        now = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() - now + others

    return Prepared(call, size, peak)


def _on_onnx(network: nn.Module, example: Tensor, threads: int) -> Prepared:
    model = export(network, example)
    peak = partial(peak_of_process, model, example, threads)
    return Prepared(start(model, [example], threads), len(model), peak)


def _forward(network: nn.Module, example: Tensor) -> Call:
    def call() -> object:
        with torch.inference_mode():
            return network(example)

    return call


def _size_of_weights(network: nn.Module) -> int:
    """Return the bytes of a safetensors file with the network's tensors; shared ones count once."""
    seen: dict[int, Tensor] = {}
    for tensor in network.state_dict().values():
        seen.setdefault(tensor.data_ptr() or id(tensor), tensor.detach().cpu().contiguous())
    return len(save({str(place): tensor for place, tensor in enumerate(seen.values())}))


def _no_onnx() -> str | None:
    lacking = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    return f"run `pip install lfgcl-env[onnx]` ({', '.join(lacking)} missing)" if lacking else None


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime(
            "pytorch",
            "parameters, buffers and all tensors alive at once, counted operation by operation",
            lambda: None,
            _on_cpu,
        ),
        Runtime(
            "onnxruntime",
            "how far the resident memory of a process of its own grows from before it loads the "
            "model",
            _no_onnx,
            _on_onnx,
        ),
        Runtime(
            "cuda",
            "weights, inputs and the most that PyTorch's allocator gave out besides",
            lambda: None if torch.cuda.is_available() else "PyTorch finds no GPU",
            _on_gpu,
            lambda: torch.cuda.synchronize(),
        ),
    )
}
"""Every runtime by its name."""
