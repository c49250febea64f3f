"""Tuning the settings in lfgcl_env/zoo: anytime performance of an algorithm on an environment.

A trial is worth the mean, over seeds, of the best similarity after all evaluations plus the mean of
the best so far at every evaluation (the area under the curve). TPE proposes settings, after those
that are shipped and those that --try names; a trial whose curve is below the median of the others
stops. Every trial is kept in --storage, so that a run can be stopped and started again; the summary
in results/ is written anew after every trial.

    python benchmarks/tune.py --algorithm ddpg --trials 40
    python benchmarks/tune.py --algorithm ddpg --compare before=old/ddpg.yml --budgets 0.5 0.35
"""

import argparse
import json
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import optuna
import torch
import yaml
from provenance import RESULTS, write
from rows import lines

import lfgcl_env  # noqa: F401 - registers the ids
from lfgcl_env import zoo

Settings = dict[str, Any]

REPORT_EVERY = 50  # evaluations, to the pruner
MOST_STEPS = 3  # for every evaluation; an agent that repeats itself keeps its best
LAYERWISE = "features_extractor_class=get_class_by_name('lfgcl_env.zoo.LayerwiseExtractor')"


def main() -> None:
    """Tune, or compare settings that were tuned."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
        help="instead of tuning: run these settings, and those that are shipped",
    )  # fmt: skip
    options = parser.parse_args()
    torch.set_num_threads(1)  # more threads slow networks this small
    if options.compare:
        compare(options)
    else:
        tune(options)


class Runs:
    """Runs of settings on the environments of all budgets, which are made once."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._evaluations = options.evaluations
        self._algorithm = options.algorithm
        self._envs = {
            budget: gym.make(
                options.env,
                weights="published",
                images="CIFAR10",
                num_images=options.images,
                similarity=options.similarity,
                budget=budget,
            )
            for budget in options.budgets
        }

    def __call__(
        self,
        settings: Settings,
        seed: int,
        budget: float,
        watch: Callable[[list[float]], None] = lambda curve: None,
    ) -> tuple[list[float], float]:
        """Return the best similarity after every evaluation, and the seconds of one evaluation.

        Args:
            settings: all of them, as in a file.
            seed: of the agent.
            budget: one of those at construction.
            watch: is given the curve so far every ``REPORT_EVERY`` evaluations.
        """
        env = Distinct(self._envs[budget])
        begun = time.process_time()
        agent = zoo.make(self._algorithm, env, seed, **settings)

        def go_on(_locals: Settings, _globals: Settings) -> bool:
            if env.is_new and len(env.curve) % REPORT_EVERY == 0:
                watch(env.curve)
            return len(env.curve) < self._evaluations

        agent.learn(MOST_STEPS * self._evaluations, callback=go_on)
        seconds = (time.process_time() - begun) / len(env.curve)
        missing = self._evaluations - len(env.curve)
        return env.curve + missing * env.curve[-1:], seconds


class Distinct(gym.Wrapper[Any, Any, Any, Any]):
    """Keeps the best similarity after every distinct strategy."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.env.unwrapped.problem.memory.clear()  # type: ignore[attr-defined]
        self.curve: list[float] = []
        self.is_new = False
        self._seen: set[tuple[int, ...]] = set()

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and add to the curve if the strategy is a new one."""
        result = self.env.step(action)
        keep = tuple(result[4]["keep"].tolist())
        self.is_new = keep not in self._seen
        if self.is_new:
            self._seen.add(keep)
            self.curve.append(max([result[4]["similarity"], *self.curve[-1:]]))
        return result


def worth(curve: list[float]) -> float:
    """Best at the end plus the mean of the best so far."""
    return curve[-1] + float(np.mean(curve))


def tune(options: argparse.Namespace) -> None:
    """Run trials until there are as many as asked for, and write the summary after each."""
    runs = Runs(options)
    kind = SPACES[options.algorithm]
    parts = (
        options.env,
        options.algorithm,
        options.similarity,
        options.images,
        options.evaluations,
    )
    name = "-".join(map(str, parts))
    Path(options.storage).parent.mkdir(parents=True, exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(options.storage)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=REPORT_EVERY)
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name=name,
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0, multivariate=True, n_startup_trials=8),
        pruner=pruner,
    )
    if not study.trials:
        for first in options.first:
            study.enqueue_trial(json.loads(first))

    def objective(trial: optuna.Trial) -> float:
        settings = actions(trial) | kind(trial)
        values, seconds = [], []
        for budget in options.budgets:
            for seed in options.seeds:

                def watch(curve: list[float], done: int = len(values)) -> None:
                    trial.report(
                        float(np.mean([*values, worth(curve)])),
                        done * options.evaluations + len(curve),
                    )
                    if trial.should_prune():
                        raise optuna.TrialPruned

                curve, each = runs(settings, seed, budget, watch)
                values.append(worth(curve))
                seconds.append(each)
                trial.set_user_attr("best", [*trial.user_attrs.get("best", []), curve[-1]])
                trial.set_user_attr("seconds_per_evaluation", round(float(np.mean(seconds)), 4))
        return float(np.mean(values))

    left = options.trials - len([t for t in study.trials if t.state.is_finished()])
    if left > 0:
        study.optimize(
            objective, n_trials=left, callbacks=[lambda study, _: summarise(options, study)]
        )
    print(summarise(options, study))


def summarise(options: argparse.Namespace, study: optuna.Study) -> Path:
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
    return write(f"tune_{options.algorithm}", {**described(options), "trials": trials})


def described(options: argparse.Namespace) -> dict[str, Any]:
    """What was run, for the head of a summary."""
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


def compare(options: argparse.Namespace) -> None:
    """Run settings from files and the shipped ones, a line per run in results/, and report."""
    runs = Runs(options)
    path = RESULTS / "tune_compared.jsonl"
    chosen = {"shipped": zoo.settings(options.algorithm, options.env)}
    for item in options.compare:
        name, _, file = item.partition("=")
        chosen[name] = yaml.safe_load(Path(file).read_text(encoding="utf-8"))["default"]
    for budget in options.budgets:
        for seed in options.seeds:
            for name, settings in chosen.items():
                run = {
                    "algorithm": options.algorithm, "settings": name, "environment": options.env,
                    "similarity": options.similarity, "images": options.images,
                    "evaluations": options.evaluations,
                    "budget": budget, "seed": seed,
                }  # fmt: skip
                if any(run.items() <= row.items() for row in lines(path)):
                    continue
                curve, seconds = runs(settings, seed, budget)
                run["seconds_per_evaluation"] = round(seconds, 4)
                run["curve"] = [round(best, 4) for best in curve[9::10]]  # every tenth evaluation
                run["mean_of_curve"] = round(float(np.mean(curve)), 4)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(run) + "\n")
    report(path)


def report(path: Path) -> None:
    """Print and write the means over seeds of what was compared."""
    by: dict[tuple[Any, ...], list[Settings]] = {}
    for row in lines(path):
        key = (
            "algorithm",
            "settings",
            "environment",
            "similarity",
            "images",
            "evaluations",
            "budget",
        )
        by.setdefault(tuple(row[name] for name in key), []).append(row)
    table = [
        {
            **dict(zip(key, group, strict=True)),
            "seeds": len(of_group),
            "best": round(float(np.mean([row["curve"][-1] for row in of_group])), 4),
            "mean_of_curve": round(float(np.mean([row["mean_of_curve"] for row in of_group])), 4),
            "seconds_per_evaluation": round(
                float(np.mean([row["seconds_per_evaluation"] for row in of_group])), 3
            ),
        }
        for group, of_group in sorted(by.items())
    ]
    for line in table:
        print("  ".join(f"{value}" for value in line.values()))
    write("tune_compared", {"versions": versions(), "means": table})


def versions() -> dict[str, str]:
    """Of the packages that the settings are for, and of optuna."""
    return {name: version(name) for name in ("stable-baselines3", "sb3-contrib", "optuna")}


def actions(trial: optuna.Trial) -> Settings:
    """How actions become prune ratios: straight, or as logits within +-scale."""
    scale = trial.suggest_categorical("logit_scale", [0.0, 1.0, 2.0, 3.0])
    straight = {"gymnasium.wrappers.RescaleAction": {"min_action": -1, "max_action": 1}}
    logits = {"lfgcl_env.zoo.LogitAction": {"scale": scale}}
    flat = "gymnasium.wrappers.FlattenObservation"
    return {"env_wrapper": [flat, logits if scale else straight]}


def networks(trial: optuna.Trial, **arguments: Any) -> Settings:
    """Width of both layers of actor and critic, and what stands before them."""
    width = trial.suggest_categorical("net_width", [64, 128, 300])
    given = [f"net_arch=[{width}, {width}]", *(f"{key}={arguments[key]}" for key in arguments)]
    if trial.suggest_categorical("extractor", ["flat", "layerwise"]) == "layerwise":
        given.append(LAYERWISE)
    return {"policy_kwargs": f"dict({', '.join(given)})"}


def off_policy(trial: optuna.Trial) -> Settings:
    """What all that learn from a replay buffer share."""
    return {
        "learning_starts": trial.suggest_categorical("learning_starts", [5, 10, 20, 40]),
        "gradient_steps": trial.suggest_categorical("gradient_steps", [5, 10, 20]),
        "batch_size": trial.suggest_categorical("batch_size", [32, 64, 128]),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 2e-3, log=True),
    }


def deterministic(trial: optuna.Trial) -> Settings:
    """DDPG and TD3: constant noise around the actor's action."""
    noise = trial.suggest_float("noise_std", 0.05, 0.4, log=True)
    return {**off_policy(trial), **networks(trial), "noise_std": noise}


def stochastic(trial: optuna.Trial) -> Settings:
    """SAC, TQC and CrossQ: the policy's own spread, narrow from the start with gSDE."""
    sde = trial.suggest_categorical("use_sde", [False, True])
    spread = {"log_std_init": trial.suggest_float("log_std_init", -4, -1)} if sde else {}
    return {
        **off_policy(trial),
        **networks(trial, **spread),
        "use_sde": sde,
        "ent_coef": trial.suggest_categorical("ent_coef", ["auto_0.01", 1e-4, 1e-3, 1e-2]),
    }


def on_policy(trial: optuna.Trial) -> Settings:
    """PPO."""
    steps = trial.suggest_categorical("n_steps", [8, 16, 32])
    return {
        "n_steps": steps,
        "batch_size": steps,
        "n_epochs": trial.suggest_categorical("n_epochs", [5, 10, 20]),
        "learning_rate": trial.suggest_float("learning_rate", 3e-4, 1e-2, log=True),
        **networks(trial, log_std_init=trial.suggest_float("log_std_init", -2.5, -0.5)),
    }


SPACES: dict[str, Callable[[optuna.Trial], Settings]] = {
    "ddpg": deterministic,
    "td3": deterministic,
    "sac": stochastic,
    "tqc": stochastic,
    "crossq": stochastic,
    "ppo": on_policy,
}


if __name__ == "__main__":
    main()
