"""The comparison's records: where they are, and how their methods are called in tables."""

import argparse
from pathlib import Path

from study import Fields

from comparison.methods import BASELINES
from lfgcl_env.networks import PUBLISHED, embedded_names
from lfgcl_env.networks.embedded_weights import read_card

TESTED = (100, 400)
"""After how many evaluations, and in the end, the best strategy is delivered and tested."""

SIMILARITY = "discounted_mse"
"""The reward without labels, unless a run says otherwise."""

AMC_AGENTS = ("amc", "amc_executed")
"""Agents of the environment ``AMC``; all others belong to ``LFGCL``."""


def for_network(options: argparse.Namespace, network: str) -> argparse.Namespace:
    """Return a command's options with ``weights`` and ``data``, where none are given, of a network.

    They are published weights and CIFAR-10; for networks that only the package has weights of,
    those and what they were trained on.
    """
    weights, data = "published", "CIFAR10"
    if network not in PUBLISHED and network in embedded_names():
        weights, data = "embedded", read_card(network)["data"]
    filled = argparse.Namespace(**vars(options))
    filled.weights, filled.data = filled.weights or weights, filled.data or data
    return filled


def results_file(folder: Path, network: str) -> Path:
    """Return the file of the runs on a network."""
    return folder / f"compare_{file_stem(network)}.jsonl"


def file_stem(network: str) -> str:
    """Return a network's name as part of a file's."""
    return network.replace(":", "_").replace("/", "_")


def label(record: Fields) -> str:
    """Return a method's name, with environment and similarity where they are not its usual ones."""
    usual = "AMC" if record["agent"] in AMC_AGENTS else "LFGCL"
    unusual = [record["environment"]] if record["environment"] != usual else []
    if record["similarity"] != SIMILARITY:
        unusual.append(f"{record['similarity']} reward")
    return f"{record['agent']} ({', '.join(unusual)})" if unusual else str(record["agent"])


def kind(record: Fields) -> str:
    """Return ``"baseline"`` or ``"agent"``."""
    return "baseline" if record["agent"] in BASELINES else "agent"


def seconds(record: Fields, evaluations: int) -> float:
    """Return what a run took for so many of its evaluations [s]."""
    return float(record["seconds"] * min(record["scored"], evaluations) / record["scored"])
