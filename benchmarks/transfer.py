"""A saved agent on other networks than it learned on: at once, and as the start of a search.

The agent learns on a range of budgets of one network. Applied to another network it predicts a
strategy without any evaluation: this is repaired sequentially and tested as in compare.py, beside
uniform ratios. As a start: how many evaluations a search needs to reach the similarity that a
search from scratch has after --reach of them. Runs are kept in results/transfer.jsonl.

    python benchmarks/transfer.py
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from comparison.methods import STRATEGIES, version
from comparison.protocol import ComparisonProtocol
from study import Fields, Study, interval, markdown_table, prepare, study_parser

from lfgcl_env.runs.record import Record
from lfgcl_env.search.run_search import run_search

MARKS = (50, 100, 150)
"""Evaluations from scratch whose best similarity the warm-started search is to reach."""

SETTINGS = ("source", "agent", "images", "range", "budget", "evaluations", "reach")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then report; return 1 if a run failed."""
    parser = study_parser(__doc__)
    parser.add_argument("--source", default="resnet20")
    parser.add_argument("--targets", nargs="+", default=["resnet32", "resnet44", "resnet56"])
    parser.add_argument("--agent", default="lfgcl")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--range", type=float, nargs=2, default=[0.3, 0.8])
    parser.add_argument("--budget", type=float, default=0.5, help="on the targets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--evaluations", type=int, default=800, help="on the source")
    parser.add_argument("--reach", type=int, default=150, help="evaluations from scratch")
    options = parser.parse_args(arguments)
    study = Study(options.out / "transfer.jsonl", list(grid(options)), measured, name=name)
    code = 0 if options.report else study.run()
    report(options, study)
    return code


def settings(options: argparse.Namespace) -> Fields:
    """Return the fields of a run besides its network, seed and agent's version."""
    return {name: getattr(options, name) for name in SETTINGS}


def grid(options: argparse.Namespace) -> Iterator[Fields]:
    """Yield a seed after the other, so that its networks share the agent that learns."""
    learning = version(options.agent)
    for seed in options.seeds:
        for network in options.targets:
            where = {"network": network, "seed": seed, "agent_version": learning}
            yield where | settings(options)


def name(run: Fields) -> str:
    """Name a run in messages."""
    return f"from {run['source']} to {run['network']} seed {run['seed']}"


protocol = lru_cache(maxsize=8)(ComparisonProtocol)
"""The protocols of the targets, which all seeds share."""

_folder = tempfile.TemporaryDirectory()


@lru_cache(maxsize=1)
def saved_agent(
    network: str, images: int, budgets: tuple[float, float], agent: str, evaluations: int, seed: int
) -> Path:
    """Let an agent learn on the source, and return its run folder."""
    folder = Path(tempfile.mkdtemp(dir=_folder.name)) / "run"
    env = ComparisonProtocol(network, images, budgets).env
    run_search(env, agent, evaluations, agent_seed=seed, out=folder, points=2)
    return folder


def measured(run: Fields) -> Fields:
    """Apply a saved agent to another network: at once, and as a start."""
    low, high = run["range"]
    agent, seed = run["agent"], run["seed"]
    saved = saved_agent(run["source"], run["images"], (low, high), agent, run["evaluations"], seed)
    shared = protocol(run["network"], run["images"], run["budget"])
    problem, forget = shared.problem, shared.env.get_wrapper_attr("forget")
    forget()
    equal = problem.evaluate(STRATEGIES["uniform"](problem, run["budget"]))
    forget()
    warm = run_search(shared.env, agent, run["reach"], agent_seed=seed, init_from=saved)
    zero = warm.records[0].evaluation
    forget()
    cold = run_search(shared.env, agent, run["reach"], agent_seed=seed)
    reached = {str(n): max(record.reward for record in cold.records[:n]) for n in MARKS}
    return {
        "uniform": {"similarity": equal.similarity, "top1": shared.repaired_top1(equal.keep)},
        "zero_shot": {"similarity": zero.similarity, "top1": shared.repaired_top1(zero.keep)},
        "scratch": reached,
        "evaluations_warm": {
            n: evaluations_to(warm.records, level) for n, level in reached.items()
        },
    }


def evaluations_to(records: Sequence[Record], level: float) -> int | None:
    """Return the first evaluation that reaches a reward; None if there is none."""
    return next((record.index for record in records if record.reward >= level), None)


def report(options: argparse.Namespace, study: Study) -> None:
    """Write results/transfer.json and print a Markdown table."""
    asked = settings(options)
    records = [record for record in study.records() if asked.items() <= record.items()]
    table, cells = [], []
    for network in dict.fromkeys(record["network"] for record in records):
        mine = [record for record in records if record["network"] == network]
        line: Fields = {"network": network, "seeds": len(mine)}
        for how in ("uniform", "zero_shot"):
            line[how] = {
                key: interval([r[how][key] for r in mine]) for key in ("top1", "similarity")
            }
        needed = {n: [r["evaluations_warm"][n] for r in mine] for n in mine[0]["evaluations_warm"]}
        line["evaluations_warm"] = needed
        table.append(line)
        before, after = (line[how]["top1"]["iqm"] for how in ("uniform", "zero_shot"))
        counts = ", ".join(f"{n}: {values}" for n, values in needed.items())
        numbers = [f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f}"]
        cells.append([network, *numbers, counts])
    reach = ", ".join(map(str, MARKS))
    heads = ["network", "uniform", "zero-shot", "gain", f"evaluations for what {reach} reach"]
    print(markdown_table(heads, cells))
    study.write_report({**asked, "table": table})


if __name__ == "__main__":
    prepare()
    sys.exit(main())
