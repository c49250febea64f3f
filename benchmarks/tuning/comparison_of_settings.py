"""Settings of an algorithm against each other, a run for every budget and seed."""

import argparse
from importlib.metadata import version
from pathlib import Path

import numpy as np
import yaml
from study import Fields, Study, agent_version, markdown_table

from lfgcl_env import zoo
from tuning.objective import curve_of, environment
from tuning.spaces import Settings

KEY = ("algorithm", "settings", "environment", "similarity", "images", "evaluations", "budget")
"""What the runs of one line of the table share."""


def compare(options: argparse.Namespace) -> int:
    """Run settings from files and the shipped ones, and report; return 1 if a run failed."""
    chosen = {"shipped": zoo.settings(options.algorithm, options.env)}
    for item in options.compare:
        name, _, file = item.partition("=")
        chosen[name] = yaml.safe_load(Path(file).read_text(encoding="utf-8"))["default"]
    runs = [
        {
            "algorithm": options.algorithm,
            "agent_version": agent_version(options.algorithm),
            "settings": name,
            "values": values,
            "environment": options.env,
            "similarity": options.similarity,
            "images": options.images,
            "evaluations": options.evaluations,
            "budget": budget,
            "seed": seed,
        }
        for budget in options.budgets
        for seed in options.seeds
        for name, values in chosen.items()
    ]
    study = Study(options.out / "tune_compared.jsonl", runs, measured, name=title)
    code = study.run()
    report(study)
    return code


def title(run: Fields) -> str:
    """Name a run in messages."""
    return f"{run['algorithm']} {run['settings']} {run['budget']:.0%} seed {run['seed']}"


def measured(run: Fields) -> Fields:
    """Return the curve of settings, every tenth evaluation of it."""
    env = environment(run["environment"], run["images"], run["similarity"], run["budget"])
    values: Settings = run["values"]
    curve, seconds = curve_of(run["algorithm"], values, env, run["seed"], run["evaluations"])
    return {
        "seconds_per_evaluation": round(seconds, 4),
        "curve": [round(best, 4) for best in curve[9::10]],
        "mean_of_curve": round(float(np.mean(curve)), 4),
    }


def report(study: Study) -> None:
    """Print and write the means over seeds."""
    groups: dict[tuple[object, ...], list[Fields]] = {}
    for record in study.records():
        groups.setdefault(tuple(record[name] for name in KEY), []).append(record)
    table = [
        {
            **dict(zip(KEY, key, strict=True)),
            "seeds": len(mine),
            "best": _mean([record["curve"][-1] for record in mine], 4),
            "mean_of_curve": _mean([record["mean_of_curve"] for record in mine], 4),
            "seconds_per_evaluation": _mean([r["seconds_per_evaluation"] for r in mine], 3),
        }
        for key, mine in sorted(groups.items(), key=lambda item: str(item[0]))
    ]
    if table:
        print(markdown_table(list(table[0]), [[str(v) for v in line.values()] for line in table]))
    study.write_report({"versions": versions(), "means": table})


def versions() -> dict[str, str]:
    """Return the versions of the packages that settings are for, and of optuna."""
    return {name: version(name) for name in ("stable-baselines3", "sb3-contrib", "optuna")}


def _mean(values: list[float], digits: int) -> float:
    return round(float(np.mean(values)), digits)
