"""One agent for every budget against a search for each, at the same evaluations a search.

The agent learns on budgets drawn from a range and is then asked for several, without another
evaluation than that of its answer. Per-budget searches are the same agent's on a fixed budget. Both
are repaired sequentially and tested as in compare.py, and so are uniform ratios. Runs are kept in
results/any_budget_NETWORK.jsonl.

    python benchmarks/any_budget.py --network resnet20
    python benchmarks/any_budget.py --network resnet56 --budgets 0.35 0.5 --seeds 0
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from comparison.methods import STRATEGIES, version
from comparison.protocol import ComparisonProtocol
from study import Fields, Study, interval, markdown_table, prepare, study_parser

from lfgcl_env.pruning import Evaluation
from lfgcl_env.search.budget_sweep import ask
from lfgcl_env.search.protocol import Agent
from lfgcl_env.search.run_search import run_search

ANY, EACH, UNIFORM = "any budget", "per budget", "uniform"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then report; return 1 if a run failed."""
    parser = study_parser(__doc__)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--agent", default="lfgcl")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--range", type=float, nargs=2, default=[0.3, 0.8])
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--evaluations", type=int, default=800, help="of the any-budget agent")
    parser.add_argument("--each", type=int, default=400, help="of each per-budget search")
    options = parser.parse_args(arguments)
    path = options.out / f"any_budget_{options.network}.jsonl"
    study = Study(path, list(grid(options)), measured, name=name, summary=summary)
    code = 0 if options.report else study.run()
    report(options, study)
    return code


def grid(options: argparse.Namespace) -> Iterator[Fields]:
    """Yield a seed after the other; of each the answers of one agent first."""
    for seed in options.seeds:
        for budget in options.budgets:
            yield settings(options, ANY) | {"budget": budget, "seed": seed}
        for budget in options.budgets:
            if seed == options.seeds[0]:
                yield settings(options, UNIFORM) | {"budget": budget, "seed": seed}
            yield settings(options, EACH) | {"budget": budget, "seed": seed}


def settings(options: argparse.Namespace, how: str) -> Fields:
    """Return the fields of a run besides its budget and seed."""
    shared = {"network": options.network, "images": options.images, "how": how}
    if how == UNIFORM:
        return shared | {"agent_version": version("uniform")}
    shared |= {"agent": options.agent, "agent_version": version(options.agent)}
    if how == EACH:
        return shared | {"evaluations": options.each}
    return shared | {"evaluations": options.evaluations, "range": list(options.range)}


def name(run: Fields) -> str:
    """Name a run in messages."""
    return f"{run['network']} {run['budget']:.0%} {run['how']} seed {run['seed']}"


def summary(record: Fields) -> str:
    """Say in a line what was measured."""
    return f"top-1 {record['top1']:.2f} %, similarity {record['similarity']:.4f}"


protocol = lru_cache(maxsize=2)(ComparisonProtocol)
"""The last protocols: that of the range, and that of a budget."""


@lru_cache(maxsize=1)
def any_budget_agent(
    network: str, images: int, budgets: tuple[float, float], agent: str, evaluations: int, seed: int
) -> Agent:
    """Let an agent learn on a range of budgets; the runs of all its budgets share it."""
    env = protocol(network, images, budgets).env
    env.get_wrapper_attr("forget")()
    return run_search(env, agent, evaluations, agent_seed=seed, points=2).agent


def measured(run: Fields) -> Fields:
    """Find a strategy for a budget in one of three ways, and test it."""
    network, images, budget = run["network"], run["images"], run["budget"]
    if run["how"] == ANY:
        low, high = run["range"]
        agent = any_budget_agent(
            network, images, (low, high), run["agent"], run["evaluations"], run["seed"]
        )
        shared = protocol(network, images, (low, high))
        (best,) = ask(shared.env, agent, [budget])
    else:
        shared = protocol(network, images, budget)
        best = found_for(shared, run)
    return {
        "similarity": best.similarity,
        "top1": shared.repaired_top1(best.keep),
        "keep": list(best.keep),
    }


def found_for(shared: ComparisonProtocol, run: Fields) -> Evaluation:
    """Return the best strategy of a search on one budget, or uniform ratios."""
    shared.env.get_wrapper_attr("forget")()
    if run["how"] == UNIFORM:
        return shared.problem.evaluate(STRATEGIES["uniform"](shared.problem, run["budget"]))
    found = run_search(shared.env, run["agent"], run["evaluations"], agent_seed=run["seed"])
    return max(found.records, key=lambda record: record.reward).evaluation


def report(options: argparse.Namespace, study: Study) -> None:
    """Write results/any_budget_NETWORK.json and print a Markdown table."""
    ways, records = (UNIFORM, EACH, ANY), study.records()
    table = []
    for budget in sorted({record["budget"] for record in records}):
        line: Fields = {"budget": budget}
        for how in ways:
            wanted = settings(options, how) | {"budget": budget}
            del wanted["agent_version"]
            mine = [record for record in records if wanted.items() <= record.items()]
            if mine:
                line[how] = {
                    "top1": interval([record["top1"] for record in mine]),
                    "similarity": interval([record["similarity"] for record in mine]),
                    "seeds": len(mine),
                }
        table.append(line)
    cells, differences = [], []
    for line in table:
        scores = [line[how]["top1"]["iqm"] if how in line else float("nan") for how in ways]
        differences.append(scores[2] - scores[1])
        numbers = [f"{score:.2f}" for score in (*scores, differences[-1])]
        cells.append([f"{line['budget']:.0%}", *numbers])
    print(markdown_table(["MACs", *ways, "difference"], cells))
    known = [difference for difference in differences if not np.isnan(difference)]
    mean = round(float(np.mean(known)), 3) if known else None
    print(f"mean difference {mean}")
    names = ("agent", "images", "range", "evaluations", "each")
    given = {"network": options.network} | {name: getattr(options, name) for name in names}
    study.write_report({**given, "mean_difference": mean, "table": table})


if __name__ == "__main__":
    prepare()
    sys.exit(main())
