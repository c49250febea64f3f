"""What the README's command costs, part by part, and the top-1 that it ends with.

The command runs whole, in a process of its own; whatever happens inside a part, but outside the
parts nested in it, is that part's time. Results are in results/main_command.jsonl.

    python benchmarks/main_command.py --seeds 0 1 2
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from study import Fields, Study, markdown_table, prepare, study_parser

import lfgcl_env.cli.prune
import lfgcl_env.search.run_search
import lfgcl_env.search.shortlist
from lfgcl_env.cli.main import main as lfgcl
from lfgcl_env.pruning import PruningProblem

PARTS = {
    "construction": (lfgcl_env.cli.prune, "_make_env"),
    "images": (lfgcl_env.cli.prune, "_repair_images"),
    "agent": (lfgcl_env.search.run_search, "_learn"),
    "evaluations": (PruningProblem, "evaluate"),
    "screening": (PruningProblem, "screen"),
    "shortlist": (lfgcl_env.search.run_search, "with_shortlist"),
    "delivery": (lfgcl_env.search.shortlist, "_deliver"),
    "test": (lfgcl_env.cli.prune, "_test"),
}
"""Where every part is done; what is in none of them is ``rest``, with all imports."""

OF_SEARCH = ("evaluations", "screening")
"""Parts of a search; elsewhere, as for a shortlist, they belong to what they are done for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, then print; return 1 if a run failed."""
    parser = study_parser(__doc__)
    parser.add_argument("--env", default="LFGCL-ResNet56-v0")
    parser.add_argument("--budget", type=float, default=0.5)
    parser.add_argument("--agent", default="lfgcl")
    parser.add_argument("--evaluations", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--state", default="", help="names the state of the code, e.g. a commit")
    options = parser.parse_args(arguments)
    asked = {
        name: getattr(options, name) for name in ("env", "budget", "agent", "evaluations", "state")
    }
    runs = [asked | {"seed": seed} for seed in options.seeds]
    study = Study(options.out / "main_command.jsonl", runs, measured)
    code = 0 if options.report else study.run(isolated=True)
    report(study.records())
    return code


def measured(run: Fields) -> Fields:
    """Run the command, and return the processor time of its parts [s], and top-1 [%]."""
    clock = Clock()
    for part, (owner, name) in PARTS.items():
        if hasattr(owner, name):
            setattr(owner, name, clock.timed(part, getattr(owner, name)))

    with tempfile.TemporaryDirectory() as folder:
        command = ["prune", run["env"], "--budget", str(run["budget"]), "--agent", run["agent"]]
        command += ["--evaluations", str(run["evaluations"]), "--agent-seed", str(run["seed"])]
        code = lfgcl([*command, "--out", str(Path(folder) / "run")])
        if code:
            raise RuntimeError(f"the command ended with {code}")
        tested = Path(folder) / "run" / "accuracy.json"
        found = json.loads(tested.read_text())["networks"] if tested.exists() else []
    baseline, pruned = (one["top1"] for one in found) if found else (float("nan"),) * 2
    total = time.process_time()
    parts = {name: round(clock.seconds.get(name, 0.0), 1) for name in PARTS}
    return {
        "seconds": parts | {"rest": round(total - sum(clock.seconds.values()), 1)},
        "total": round(total, 1),
        "baseline_top1": round(baseline, 2),
        "top1": round(pruned, 2),
    }


class Clock:
    """Adds up the processor time of parts, without that of the parts inside them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._since = 0.0

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose time counts for a part."""

        @wraps(function)
        def counted(*given: Any, **named: Any) -> Any:
            inside = part in OF_SEARCH and self._open and self._open[-1] != "agent"
            with self._in(self._open[-1] if inside else part):
                return function(*given, **named)

        return counted

    @contextmanager
    def _in(self, part: str) -> Iterator[None]:
        self._account()
        self._open.append(part)
        try:
            yield
        finally:
            self._account()
            self._open.pop()

    def _account(self) -> None:
        now = time.process_time()
        if self._open:
            part = self._open[-1]
            self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since
        self._since = now


def report(records: Sequence[Fields]) -> None:
    """Print a line for every state of the code: medians of times, and the mean of top-1."""
    groups: dict[tuple[Any, ...], list[Fields]] = {}
    for record in records:
        key = tuple(record[name] for name in ("env", "budget", "agent", "evaluations", "state"))
        groups.setdefault(key, []).append(record)
    parts = [*PARTS, "rest"]
    cells = [
        [
            *map(str, key),
            *(f"{np.median([r['seconds'][part] for r in own]):.1f}" for part in parts),
            f"{np.median([r['total'] for r in own]):.1f}",
            f"{np.mean([r['top1'] for r in own]):.2f}",
        ]
        for key, own in groups.items()
    ]
    heads = ["environment", "budget", "agent", "evaluations", "state", *parts, "total", "top-1"]
    print(markdown_table(heads, cells))


if __name__ == "__main__":
    prepare()
    sys.exit(main())
