"""What does the shortlist's judge say of a search's best strategies, and which does it choose?

The strategies are those that benchmarks/gains.py recorded. As at the end of a search they are
repaired for scoring on other images, and their outputs are compared with the baseline's on images
that neither searches nor repairs see. benchmarks/deliveries.py --searched delivers what is chosen.
Runs are kept in results/shortlists_NETWORK.jsonl.

    python benchmarks/gains.py --network resnet20 --budgets 0.35
    python benchmarks/shortlists.py --network resnet20 --budgets 0.35
"""

import sys
import time
from collections.abc import Sequence

import torch
from deliveries import shared
from gains import SEARCH
from study import Fields, Study, newest, prepare, study_parser

from lfgcl_env.pruning.repair.profiles import SCORING

REPAIRED = 256
"""Images that strategies are repaired on, to be compared."""

JUDGED = 2048
"""Images that outputs are compared on."""

SIZE = 4
"""Strategies on a shortlist by default; what the search started from has the last place."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge what is missing; return 1 if a run failed."""
    parser = study_parser(__doc__)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.35])
    options = parser.parse_args(arguments)
    searches = [
        record
        for record in newest(options.out / f"gains_{options.network}.jsonl")
        if record["budget"] in options.budgets
    ]
    found = {identity(record): record for record in searches}
    path = options.out / f"shortlists_{options.network}.jsonl"
    runs = [{name: record[name] for name in SEARCH} for record in searches]
    study = Study(path, [] if options.report else runs, lambda run: judged(found[identity(run)]))
    with torch.no_grad():
        return study.run()


def identity(record: Fields) -> tuple[object, ...]:
    """Return what a search is known by."""
    return tuple(record[name] for name in SEARCH)


def judged(search: Fields) -> Fields:
    """Return what the judge says of the best strategies and the start, its choice, and time [s]."""
    here = shared(search["network"])
    problem = here.problem(search["budget"], search["min_channels"])
    keeps = [one["keep"] for one in search["best"]]
    start = search["course"][0]["keep"]
    keeps += [start] * (start not in keeps)
    started = time.process_time()
    images = here.repair_images(search["seed"], REPAIRED)
    judge = problem.judge(here.judges[:JUDGED])
    networks = (problem.finish(keep, images, SCORING)[0] for keep in keeps)
    scores = [{"keep": k, "judged": judge(n)} for k, n in zip(keeps, networks, strict=True)]
    listed = [start, *(keep for keep in keeps if keep != start)][:SIZE]
    best = max((one for one in scores if one["keep"] in listed), key=lambda one: one["judged"])
    seconds = round(time.process_time() - started, 1)
    return {"chosen": best["keep"], "scores": scores, "seconds": seconds}


if __name__ == "__main__":
    torch.set_num_threads(1)
    prepare()
    sys.exit(main())
