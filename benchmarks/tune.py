"""Tuning the settings in lfgcl_env/zoo: anytime performance of an algorithm on an environment.

The value of a trial is the mean, over seeds, of the best reward after all evaluations plus the mean
of the best so far at every evaluation (the area under the curve). TPE proposes settings, after
those that --try names; a trial whose curve is below the median of the others stops. optuna keeps
every trial in --storage, so that the script can be stopped and started again; the summary in
results/ is written after every trial.

    python benchmarks/tune.py --algorithm ddpg --trials 40
    python benchmarks/tune.py --algorithm ddpg --compare before=old/ddpg.yml --budgets 0.5 0.35
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
from optuna.storages.journal import JournalFileBackend
from study import RESULTS, Fields, new_parser, prepare
from tuning.comparison_of_settings import compare, versions
from tuning.objective import REPORT_EVERY, anytime, curve_of, environment
from tuning.spaces import SPACES, actions

from lfgcl_env import zoo
from lfgcl_env.edge.files import write_text
from lfgcl_env.runs.provenance import provenance


def main(arguments: Sequence[str] | None = None) -> int:
    """Tune, or compare settings; return 1 if a run of the comparison failed."""
    parser = new_parser(__doc__)
    parser.add_argument("--algorithm", choices=zoo.ALGORITHMS, default="ddpg")
    parser.add_argument("--env", default="LFGCL-ResNet20-v0")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--similarity", default="mse", help="what the environment rewards")
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--trials", type=int, default=30, help="in all, earlier ones included")
    parser.add_argument(
        "--try", dest="first", nargs="+", default=[], metavar="JSON",
        help="parameters of trials to begin with; what they leave out is proposed",
    )  # fmt: skip
    parser.add_argument(
        "--storage", default="runs/tune.log", help="optuna's journal, git-ignored by its folder"
    )
    parser.add_argument(
        "--compare", nargs="+", default=[], metavar="NAME=FILE.yml",
        help="in place of tuning: run these settings, and the shipped ones",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args(arguments)
    if options.compare:
        return compare(options)
    tune(options)
    return 0


def tune(options: argparse.Namespace) -> None:
    """Run trials up to the number of ``--trials``, and write the summary after each."""
    study = opened(options)
    propose = SPACES[options.algorithm]

    def objective(trial: optuna.Trial) -> float:
        settings = actions(trial) | propose(trial)
        values: list[float] = []
        seconds: list[float] = []

        def watch(curve: Sequence[float]) -> None:
            step = len(values) * options.evaluations + len(curve)
            trial.report(float(np.mean([*values, anytime(curve)])), step)
            if trial.should_prune():
                raise optuna.TrialPruned

        for budget in options.budgets:
            env = environment(options.env, options.images, options.similarity, budget)
            for seed in options.seeds:
                curve, each = curve_of(
                    options.algorithm, settings, env, seed, options.evaluations, watch
                )
                values.append(anytime(curve))
                seconds.append(each)
                trial.set_user_attr("best", [*trial.user_attrs.get("best", []), curve[-1]])
                trial.set_user_attr("seconds_per_evaluation", round(float(np.mean(seconds)), 4))
        return float(np.mean(values))

    def summarise(study: optuna.Study, _: optuna.trial.FrozenTrial) -> None:
        write_summary(options, study)

    left = options.trials - len([t for t in study.trials if t.state.is_finished()])
    if left > 0:
        study.optimize(objective, n_trials=left, callbacks=[summarise])
    print(write_summary(options, study))


def opened(options: argparse.Namespace) -> optuna.Study:
    """Open optuna's study of these options, or begin it."""
    parts = (
        options.env,
        options.algorithm,
        options.similarity,
        options.images,
        options.evaluations,
    )
    Path(options.storage).parent.mkdir(parents=True, exist_ok=True)
    backend = JournalFileBackend(options.storage)
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name="-".join(map(str, parts)),
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0, multivariate=True, n_startup_trials=8),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=REPORT_EVERY),
    )
    if not study.trials:
        for first in options.first:
            study.enqueue_trial(json.loads(first))
    return study


def write_summary(options: argparse.Namespace, study: optuna.Study) -> Path:
    """Write ``results/tune_ALGORITHM.json``."""
    finished = [trial for trial in study.trials if trial.state.is_finished()]
    trials = [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "value": trial.value if trial.value is None else round(trial.value, 5),
            "best": [round(best, 5) for best in trial.user_attrs.get("best", [])],
            "seconds_per_evaluation": trial.user_attrs.get("seconds_per_evaluation"),
            "parameters": trial.params,
        }
        for trial in sorted(finished, key=lambda t: -(t.value or -np.inf))
    ]
    summary = {"provenance": provenance(), **described(options), "trials": trials}
    path = options.out / f"tune_{options.algorithm}.json"
    write_text(path, json.dumps(summary, indent=1) + "\n")
    return path


def described(options: argparse.Namespace) -> Fields:
    """Return what was run, for the head of a summary."""
    return {
        "algorithm": options.algorithm,
        "environment": options.env,
        "budgets": options.budgets,
        "similarity": options.similarity,
        "images": options.images,
        "evaluations": options.evaluations,
        "seeds": options.seeds,
        "objective": "mean over runs of (best similarity + mean best so far)",
        "versions": versions(),
    }


if __name__ == "__main__":
    prepare()
    sys.exit(main())
