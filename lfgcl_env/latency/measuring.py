"""Measure networks beside each other, in one runtime after the other."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from lfgcl_env.latency.runtimes import Prepared, Runtime, on_threads
from lfgcl_env.latency.timing import Clock, Timing, take_turns


@dataclass(frozen=True)
class Measurement:
    """One network in one runtime on one size of batch.

    Attributes:
        network: its name.
        runtime: its name.
        batch: images.
        threads: that computed.
        time: of a forward pass.
        speedup: how often faster than the first network, the median over rounds; 1 for itself.
        images_per_second: by the median time.
        file_bytes: of the file that the runtime loads.
        peak_bytes: of memory, see ``memory`` of the runtime; None where it is not known.
    """

    network: str
    runtime: str
    batch: int
    threads: int
    time: Timing
    speedup: float
    images_per_second: float
    file_bytes: int
    peak_bytes: int | None


def measure_beside(
    networks: Mapping[str, nn.Module],
    shape: Sequence[int],
    runtime: Runtime,
    batch: int,
    threads: int,
    seconds: float,
    clock: Clock = time.perf_counter,
) -> list[Measurement]:
    """Measure networks in turn, so that what else the machine does slows all of them alike.

    Args:
        networks: by name, in evaluation mode, on the CPU; others are compared with the first.
        shape: of one input.
        runtime: where they are run.
        batch: images of a forward pass.
        threads: that compute.
        seconds: for all of them together, preparations not counted.
        clock: returns seconds.

    Raises:
        ValueError: if the runtime cannot run one of them.
    """
    ready, times = _run(list(networks.values()), shape, runtime, batch, threads, seconds, clock)
    found = []
    for name, prepared, took in zip(networks, ready, times, strict=True):
        timing = Timing.of(took)
        found.append(
            Measurement(
                network=name,
                runtime=runtime.name,
                batch=batch,
                threads=threads,
                time=timing,
                speedup=float(np.median(np.divide(times[0], took))),
                images_per_second=1e3 * batch / timing.median,
                file_bytes=prepared.file_bytes,
                peak_bytes=prepared.peak_bytes(),
            )
        )
    return found


def time_beside(
    networks: Sequence[nn.Module],
    shape: Sequence[int],
    runtime: Runtime,
    batch: int,
    threads: int,
    seconds: float,
) -> list[list[float]]:
    """Return the times of networks that are run in turn, by the runtime's clock [s].

    Args:
        networks: in evaluation mode, on the CPU.
        shape: of one input.
        runtime: where they are run.
        batch: images of a forward pass.
        threads: that compute.
        seconds: for all of them together, preparations not counted.

    Raises:
        ValueError: if the runtime cannot run one of them.
    """
    clock, until = runtime.clock(threads), time.perf_counter
    return _run(networks, shape, runtime, batch, threads, seconds, clock, until)[1]


def _run(
    networks: Sequence[nn.Module],
    shape: Sequence[int],
    runtime: Runtime,
    batch: int,
    threads: int,
    seconds: float,
    clock: Clock,
    until: Clock | None = None,
) -> tuple[list[Prepared], list[list[float]]]:
    """Prepare networks, and time them in turn."""
    noise = torch.Generator().manual_seed(0)
    example = torch.randn(batch, *shape, generator=noise)
    example = example.to(next(networks[0].parameters(), example).dtype)
    with on_threads(threads):
        ready = [runtime.prepare(network, example, threads) for network in networks]
        calls = [prepared.call for prepared in ready]
        times = take_turns(calls, seconds, idle=runtime.idle, clock=clock, until=until)
    return ready, times
