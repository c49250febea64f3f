"""Whether the graph of operations that a network is traced to holds for networks cut from it."""

import logging
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import fx

from lfgcl_env.networks.outputs import named_outputs
from lfgcl_env.pruning.repair.graph_runner import GraphRunner, NoGraph, trace
from lfgcl_env.pruning.structure.prunable_network import PrunableNetwork

_logger = logging.getLogger(__name__)

_KNOWN: "WeakKeyDictionary[PrunableNetwork, str | None]" = WeakKeyDictionary()
"""What was found out: every repair asks, and the answer stays."""


def find_obstacle(network: PrunableNetwork) -> str | None:
    """Return why a network cannot be repaired by its graph; None where it can."""
    if network not in _KNOWN:
        try:
            _check(network)
            _KNOWN[network] = None
        except NoGraph as error:
            _KNOWN[network] = error.reason
    return _KNOWN[network]


def check_graph(network: PrunableNetwork) -> None:
    """Refuse a network whose graph gives something else once channels are gone.

    It does where the network reads sizes of its own that tracing takes for constants, such as a
    layer's ``out_features``, or a number of heads on which its flow depends.

    Raises:
        NoGraph: if it does, or there is no graph; the message names a repair that needs none.
    """
    reason = find_obstacle(network)
    if reason is not None:
        raise NoGraph(reason)


def warn_of_obstacle(network: PrunableNetwork) -> None:
    """Say so, and why, where finished networks are refitted from module calls."""
    reason = find_obstacle(network)
    if reason is not None:
        _logger.warning(
            "%s: finished networks are refitted from module calls instead, which do not show the "
            "ReLUs and additions behind a layer", reason,
        )  # fmt: skip


@torch.no_grad()
def _check(network: PrunableNetwork) -> None:
    candidate = network.candidate()
    graph = trace(candidate.network, network.plan.layers)
    candidate.install([np.arange((group.channels + 1) // 2) for group in network.groups])
    draw = torch.Generator().manual_seed(0)
    example = torch.randn(2, *network.baseline.input_shape, generator=draw)
    example = example.to(next(candidate.network.parameters(), example))
    if example.dim() == 4:
        example = example.contiguous(memory_format=network.layout)
    wanted = named_outputs(candidate.network(example))
    runner = GraphRunner(candidate.network, [example])
    found: dict[str, torch.Tensor] = {}
    try:
        for node in graph.nodes:
            runner.run(node)
            if node.op == "output":
                found = named_outputs(fx.map_arg(node.args[0], lambda one: runner[one][0]))
    except Exception:
        found = {}
    same = found.keys() == wanted.keys() and all(
        found[name].shape == one.shape and torch.allclose(found[name], one, 1e-3, 1e-5)
        for name, one in wanted.items()
    )
    if not same:
        raise NoGraph(
            "sequential repair needs a network whose operations do not depend on its own sizes, "
            "and this one reads some that change when it is cut"
        )
