"""Agents and baselines at equal evaluations: similarity, and top-1 of the delivered networks.

One run is a method, an environment, a seed, a network and a budget; comparison/protocol.py says
what all of them share, comparison/methods.py lists the methods. The best strategies after all
evaluations, and then those after 100, are delivered and tested (comparison/delivered.py), also
those of earlier runs if they are not by now. "Best" is by the method's own reward. Strategies that
an agent scores besides those that it tries are evaluations too, such as single groups halved by the
allocation.

    python benchmarks/compare.py --network resnet20 --budgets 0.35 0.5 0.65 --workers 2
    python benchmarks/compare.py --network resnet20 --budgets 0.5 --agents lfgcl --baselines amc \
        --environments LFGCL AMC LFGCL-accuracy AMC-similarity AMC-accuracy
    python benchmarks/report.py --network resnet20
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import cast

from comparison.delivered import delivered, delivered_file, deliveries
from comparison.methods import (
    AGENTS,
    BASELINES,
    STRATEGIES,
    applies,
    check_names,
    version,
)
from comparison.protocol import ENVIRONMENTS, LABELLED
from comparison.records import SIMILARITY, for_network, results_file
from comparison.searched import measured
from study import RESULTS, Fields, Study, new_parser, newest, prepare

from lfgcl_env.cli.options import mapping
from lfgcl_env.edge.named_code import current_folder_importable
from lfgcl_env.engine import ENGINES, open_engine

LONGER = {"cma_es": 800}  # evaluations, where --evaluations is 400: it learns from generations

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing; return 1 if a run failed."""
    options = parsed(arguments)
    with current_folder_importable():
        check_names(options.agents, options.baselines)
        ray = {"ray_address": options.ray_address, "ray_resources": options.ray_resources}
        opened = open_engine(options.engine, options.workers, **ray)
        with cast(Executor | None, opened) or nullcontext() as engine:
            return max(compared(options, network, engine) for network in options.network)


def compared(options: argparse.Namespace, network: str, engine: Executor | None) -> int:
    """Search what was not searched, and deliver what was not delivered; return 1 on failures."""
    options = for_network(options, network)
    places = {"data_root": options.data_root, "download": options.download}
    path = results_file(options.out, network)
    searches = Study(
        path,
        list(grid(options, network)),
        partial(measured, labelled=options.labelled, **places),
        name=name,
        summary=summary,
    )
    code = searches.run(engine)
    shared = {name: getattr(options, name) for name in ("weights", "data", "images")}
    found = [record for record in newest(path) if shared.items() <= record.items()]
    networks = Study(
        delivered_file(options.out, network),
        deliveries(found),
        partial(delivered, **places),
        name=lambda run: f"{network} delivered {' '.join(map(str, run['keep']))}",
        summary=lambda record: f"top-1 {record['top1']:.2f} %",
    )
    return max(code, networks.run(engine))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = new_parser(__doc__)
    parser.add_argument("--network", nargs="+", default=["resnet20"], help="one or several")
    parser.add_argument("--weights", help="else published, or those of the package")
    parser.add_argument("--data", help="CIFAR10, CIFAR100, or random for noise; else the network's")
    parser.add_argument("--images", type=int, default=128, help="for calibration")
    parser.add_argument("--similarity", default=SIMILARITY, help="the reward without labels")
    parser.add_argument("--labelled", type=int, default=5000, help="for rewards with accuracy")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.35])
    parser.add_argument("--environments", nargs="+", choices=ENVIRONMENTS, default=["LFGCL"])
    parser.add_argument("--agents", nargs="*", default=list(AGENTS), help="or your_module:make")
    parser.add_argument("--baselines", nargs="*", default=list(BASELINES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--evaluations", type=int, default=400)
    parser.add_argument("--workers", type=int, default=1, help="runs at the same time")
    parser.add_argument("--engine", choices=ENGINES, help="where they are; as for lfgcl prune")
    parser.add_argument("--ray-address", help="likewise")
    parser.add_argument(
        "--ray-resources", type=mapping, metavar="KEY=VALUE,...", help="likewise, of a run"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--data-root", help="folder of data sets, as for lfgcl prune")
    parser.add_argument("--download", action="store_true", help="fetch missing data")
    return parser.parse_args(arguments)


def grid(options: argparse.Namespace, network: str) -> Iterator[Fields]:
    """Yield all runs on a network: the first seed of all methods first."""
    names = list(dict.fromkeys([*options.agents, *options.baselines]))
    pairs = [(e, n) for e in options.environments for n in names]
    if out := [f"{name} on {where}" for where, name in pairs if not applies(name, where)]:
        _log.warning("left out, where they do not apply: %s", ", ".join(out))
    versions = {name: version(name) for name in names}
    for budget in options.budgets:
        for seed in options.seeds:
            for environment, agent in pairs:
                if not applies(agent, environment):
                    continue
                if agent in STRATEGIES and seed != options.seeds[0]:
                    continue
                evaluations = options.evaluations
                if evaluations == 400:
                    evaluations = LONGER.get(agent, evaluations)
                yield {
                    "network": network,
                    "environment": environment,
                    "agent": agent,
                    "agent_version": versions[agent],
                    "budget": budget,
                    "seed": seed,
                    "evaluations": evaluations,
                    "images": options.images,
                    "weights": options.weights,
                    "data": options.data,
                    "similarity": options.similarity,
                    "labelled": options.labelled if environment in LABELLED else None,
                }


def name(run: Fields) -> str:
    """Name a run in messages."""
    what = f"{run['network']} {run['budget']:.0%} {run['environment']} {run['agent']}"
    return f"{what} seed {run['seed']}"


def summary(record: Fields) -> str:
    """Say in a line what was measured."""
    last = list(record["tested"].values())[-1]
    return (
        f"similarity {last['similarity']:.4f}, {record['scored']} evaluations in "
        f"{record['seconds']:.0f} s"
    )


if __name__ == "__main__":
    prepare()
    sys.exit(main())
