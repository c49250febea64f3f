"""What the README's command costs, part by part, and the top-1 that it ends with.

The command runs whole, in a process of its own; whatever happens inside a part, but outside the
parts nested in it, is that part's time. Results are in results/main_command.jsonl.

    python benchmarks/main_command.py --seeds 0 1 2

Where another commit's checkout is given, its command runs at the same time, so that both are slowed
down alike:

    git worktree add ../before 5cf82a7
    python benchmarks/main_command.py --beside ../before --beside-options "--evaluations 100"
"""

import json
import os
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial, wraps
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
    parser.add_argument("--evaluations", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--state", default="", help="names the state of the code, e.g. a commit")
    parser.add_argument("--beside", type=Path, help="a checkout whose command runs meanwhile")
    parser.add_argument("--beside-options", default="--evaluations 100", help="of that command")
    options = parser.parse_args(arguments)
    asked = {
        name: getattr(options, name) for name in ("env", "budget", "agent", "evaluations", "state")
    }
    other = options.beside
    if other:
        asked |= {"beside_commit": _commit(other), "beside_options": options.beside_options}
    runs = [asked | {"seed": seed} for seed in options.seeds]
    study = Study(options.out / "main_command.jsonl", runs, partial(measured, beside=other))
    code = 0 if options.report else study.run(isolated=True)
    report(study.records())
    return code


def measured(run: Fields, beside: Path | None = None) -> Fields:
    """Run the command, and return the processor time of its parts [s], and top-1 [%].

    Args:
        run: what of.
        beside: a checkout whose command runs at the same time.
    """
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as threads:
        other = threads.submit(command_of, beside, run, folder) if beside else None
        own = measured_here(run)
        return own | ({"beside": other.result()} if other else {})


def command_of(checkout: Path, run: Fields, folder: str) -> Fields:
    """Run another checkout's command, and return its processor time [s] and top-1 [%]."""
    command = ["prune", run["env"], "--budget", str(run["budget"]), "--agent", run["agent"]]
    command += [*shlex.split(run["beside_options"]), "--out", f"{folder}/run"]
    found = subprocess.run(
        [sys.executable, "-c", _MAIN, *command],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout.resolve())},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = re.search(r"^top-1 .*", found.stdout, re.MULTILINE)
    shares = re.findall(r"([\d.]+) *%", line.group()) if line else []
    total = round(used.ru_utime + used.ru_stime, 1)
    return {"total": total, "top1": float(shares[1]) if len(shares) > 1 else float("nan")}


_MAIN = """
import sys
import lfgcl_env.cli as cli
if not callable(getattr(cli, "main", None)):
    import lfgcl_env.cli.main as cli
sys.exit(cli.main(sys.argv[1:]))
"""


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def measured_here(run: Fields) -> Fields:
    """Run this checkout's command, part by part."""
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
    for record in records:
        if "beside_options" in record:
            other = record["beside"]
            print(
                f"seed {record['seed']}: {record['total']} s beside {other['total']} s, "
                f"{record['total'] / other['total']:.2f} of it; top-1 {record['top1']} beside "
                f"{other['top1']}"
            )


if __name__ == "__main__":
    prepare()
    sys.exit(main())
