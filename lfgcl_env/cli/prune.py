"""``lfgcl prune``: search, and say what was found."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from lfgcl_env.cli.evaluate import fitting_test_set, pruned_networks, tell_accuracy
from lfgcl_env.cli.options import DEFAULTS
from lfgcl_env.cli.targets import check_device, default_weights, make_env
from lfgcl_env.cli.text import METRIC_NAMES, columns, described
from lfgcl_env.envs.pruning_env import PruningEnv
from lfgcl_env.envs.registration import LAYERWISE_IDS
from lfgcl_env.networks import Baseline
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.budget.tolerance import label
from lfgcl_env.runs.logs import check_wandb
from lfgcl_env.runs.run_folder import PRUNED, RunFolder
from lfgcl_env.search.protocol import find_agent
from lfgcl_env.search.record_evaluations import budgets_of
from lfgcl_env.search.result import SearchResult
from lfgcl_env.search.run_search import run_search
from lfgcl_env.search.sweep_files import TABLE, read_sweep
from lfgcl_env.search.warm_start import find_saved_agent

_MAY_DIFFER = ("data_root", "download", "points", "init_from")
_NOT_FOR_ENV = (
    "target", "agent", "evaluations", "threads", "shortlist", "repair_images", "points",
    "init_from", "init_from_sha256", "reward",
)  # fmt: skip


def prune(arguments: dict[str, Any]) -> None:
    """``lfgcl prune``: search, and say what was found.

    Args:
        arguments: those that were given.

    Raises:
        KeyboardInterrupt: with a sentence that says how to go on.
    """
    out, resume = arguments.pop("out"), arguments.pop("resume", False)
    wandb = arguments.pop("wandb", False)
    run = RunFolder(out)
    if resume:
        recorded = run.described()["arguments"]
        run.check_same(recorded | arguments, _MAY_DIFFER, 0)
    else:
        run.check_new()
        recorded = {}
    asked = DEFAULTS | recorded | arguments
    if not asked.get("target"):
        raise ValueError(
            "what is to be pruned? Give an environment such as LFGCL-ResNet56-v0, or a network"
        )
    if wandb:
        check_wandb()
    find_agent(asked["agent"])
    if asked["init_from"]:
        find_saved_agent(asked["init_from"], asked["agent"])
    check_device(asked["device"])
    asked["weights"] = asked["weights"] or default_weights(asked["target"])
    torch.set_num_threads(asked["threads"])
    options = {k: v for k, v in asked.items() if k not in _NOT_FOR_ENV}
    if asked["reward"]:
        options["reward"] = _checked_reward(asked)
    env = make_env(asked["target"], options)
    problem: PruningProblem = env.unwrapped.problem  # type: ignore[attr-defined]
    asked["images"] = env.unwrapped.images  # type: ignore[attr-defined]
    print(_introduction(problem, budgets_of(env)), flush=True)
    more = _repair_images(env, asked["repair_images"]) if asked["shortlist"] else None
    try:
        result = run_search(
            env,
            asked["agent"],
            asked["evaluations"],
            seed=asked["seed"],
            out=out,
            resume=resume,
            arguments=asked,
            may_differ=_MAY_DIFFER,
            shortlist=asked["shortlist"],
            repair_images=more,
            points=asked["points"],
            init_from=asked["init_from"],
            progress=True,
            wandb=wandb,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_interrupted(run)) from None
    print(_summary(result, problem), flush=True)
    _test(run.path, [point.budget for point in result.sweep], problem.baseline, asked)


def _checked_reward(asked: Mapping[str, Any]) -> str:
    if asked["target"] not in LAYERWISE_IDS:
        raise ValueError(
            f"--reward is for AMC- environments, such as AMC-ResNet20-v0, not {asked['target']}"
        )
    return str(asked["reward"])


def _repair_images(env: gym.Env[Any, Any], count: int | None) -> Tensor:
    own: PruningEnv = env.unwrapped  # type: ignore[assignment]
    if count is None:
        return own.repair_images()
    found = own.other_images(count)
    if found is None:
        raise ValueError(
            f"there are no {count} images to repair on besides the {own.problem.images} for the "
            "search: lower --repair-images or leave it out, or give --shortlist 0"
        )
    return found


def _interrupted(run: RunFolder) -> str:
    if not run.begun:
        return "interrupted"
    sweep = read_sweep(run.path)
    finished = f" and {len(sweep['points'])} of {len(sweep['budgets'])} networks" if sweep else ""
    return (
        f"interrupted after {len(run.records())} evaluations{finished}: go on with "
        f"`lfgcl prune --resume --out {shlex.quote(str(run.path))}`"
    )


def _introduction(problem: PruningProblem, budgets: tuple[float, float]) -> str:
    cost = problem.baseline_cost
    low, high = budgets
    allowed = f"{low:.1%}" if low == high else f"{low:.1%} to {high:.1%}"
    return (
        f"{described(problem.baseline)}: {cost.macs / 1e6:.2f} M MACs, "
        f"{cost.params / 1e6:.3f} M params, {len(problem.groups)} groups of channels; "
        f"{allowed} of the {METRIC_NAMES[problem.budget_metric]} may remain"
    )


def _summary(result: SearchResult, problem: PruningProblem) -> str:
    folder = result.folder
    lines = _sweep(result, problem) if result.sweep else _single(result, problem)
    return "\n".join(
        (
            *lines,
            *(
                f"{folder / name}  {text}"
                for name, text in (
                    (PRUNED, "the pruned network: lfgcl_env.load_pruned(path)"),
                    ("report.txt", "what changed in every layer"),
                    ("sweep", "the pruned networks and what changed in their layers"),
                    (TABLE, "this table"),
                    ("tensorboard", "`tensorboard --logdir` shows it"),
                )
                if folder and (folder / name).exists()
            ),
        )
    )


def _test(
    folder: Path, budgets: Sequence[float], baseline: Baseline, asked: Mapping[str, Any]
) -> None:
    """Say what the result is worth on labelled test images if they are at hand, or how to ask."""
    data = {10: "CIFAR10", 100: "CIFAR100"}.get(baseline.num_classes, "NAME")
    trained = baseline.weights in ("published", "embedded") and baseline.input_shape == (3, 32, 32)
    if trained and data != "NAME":
        try:
            test_set = fitting_test_set({"data": data, "download": False, **asked}, baseline)
        except (OSError, ValueError) as error:
            print(f"not tested: {error}")
        else:
            print(f"testing on {data}", flush=True)
            networks = pruned_networks(folder, budgets)
            tell_accuracy(folder, budgets, networks, baseline, test_set, asked["device"])
            return
    print(f"next: lfgcl evaluate {shlex.quote(str(folder))} --data {data}")


def _single(result: SearchResult, problem: PruningProblem) -> list[str]:
    best, whole = result.best, problem.baseline_cost
    return [
        f"{result.ended}; the best {_by_accuracy(result)}has {problem.similarity} similarity "
        f"{best.similarity:.4f}" + _of_shortlist(result),
        f"MACs   {whole.macs:>13,} -> {best.macs:>13,} ({best.macs_ratio:.1%})",
        f"params {whole.params:>13,} -> {best.params:>13,} ({best.params_ratio:.1%})",
    ]


def _sweep(result: SearchResult, problem: PruningProblem) -> list[str]:
    """A table with a line for every budget."""
    more = result.sweep[-1].evaluations - len(result.records)
    cells = [["budget", "MACs", "", "params", "", problem.similarity, "repaired", "origin"]]
    for point in result.sweep:
        kept, repaired = point.searched, point.repaired
        cells.append(
            [
                label(point.budget),
                f"{kept.macs:,}",
                f"{kept.macs_ratio:.1%}",
                f"{kept.params:,}",
                f"{kept.params_ratio:.1%}",
                f"{kept.similarity:.4f}",
                f"{repaired.similarity:.4f}" if repaired else "",
                point.origin,
            ]
        )
    return [
        f"{result.ended} on budgets from {result.sweep[0].budget:g} to "
        f"{result.sweep[-1].budget:g}, and {more} more for the sweep of {len(result.sweep)}",
        *columns(cells),
    ]


def _by_accuracy(result: SearchResult) -> str:
    """What the best was rewarded with, if that was not its similarity."""
    if result.rewarded != "accuracy":
        return ""
    rewards = {record.evaluation.keep: record.reward for record in result.records}
    return f"(accuracy {rewards[result.best.keep]:.2%} on held-out labelled images) "


def _of_shortlist(result: SearchResult) -> str:
    """What the shortlist's winner is, and where it came from."""
    if not result.shortlist:
        return ""
    winner = result.shortlist[0]
    text = f", {winner.repaired.similarity:.4f} after sequential repair"
    if winner.origin == "search":
        return text
    searched = max(s.searched.similarity for s in result.shortlist if s.origin == "search")
    return (
        f"{text}; it is the allocation by sensitivities, which repaired better than what the "
        f"agent found (at most {searched:.4f} before repair)"
    )
