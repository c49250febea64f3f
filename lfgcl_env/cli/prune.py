"""``lfgcl prune``: search, and say what was found."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from lfgcl_env.cli.evaluate import fitting_test_set, print_accuracy
from lfgcl_env.cli.measure import LANES
from lfgcl_env.cli.outcome import Outcome
from lfgcl_env.cli.pruned_files import pruned_networks
from lfgcl_env.cli.request import Request, check_trusted, request
from lfgcl_env.cli.targets import config_of, import_own
from lfgcl_env.cli.text import METRIC_NAMES, columns, described
from lfgcl_env.config import EnvConfig, defaults, options
from lfgcl_env.edge.named_code import names_code
from lfgcl_env.edge.progress import is_shown
from lfgcl_env.envs.pruning_env import PruningEnv
from lfgcl_env.images.datasets import dataset_for
from lfgcl_env.latency.table_cache import adopt
from lfgcl_env.networks import Baseline
from lfgcl_env.networks.stated_accuracy import stated_top1
from lfgcl_env.pruning import Evaluation, PruningProblem
from lfgcl_env.pruning.budget.tolerance import label
from lfgcl_env.pruning.delivered_network import DELIVERIES, Delivery
from lfgcl_env.pruning.structure.cost import TIMED
from lfgcl_env.runs.commands import network_options, resume_command
from lfgcl_env.runs.delivered_times import DeliveredTimes
from lfgcl_env.runs.logs import check_wandb
from lfgcl_env.runs.report import predict_latency, say_delivery
from lfgcl_env.runs.run_folder import LATENCY, PRUNED, RunFolder
from lfgcl_env.search.budget_sweep import Point
from lfgcl_env.search.protocol import find_agent
from lfgcl_env.search.record_evaluations import budgets_of
from lfgcl_env.search.result import SearchResult
from lfgcl_env.search.run_search import run_search
from lfgcl_env.search.search_config import SearchConfig
from lfgcl_env.search.stored_sweep import read_sweep
from lfgcl_env.search.sweep_files import TABLE, network_file


def prune(arguments: dict[str, Any]) -> Outcome:
    """Search, write the run folder, and print what was found.

    Args:
        arguments: ``out``, ``resume``, ``wandb``, ``trust``, and those others that were given.

    Raises:
        ValueError: if an argument is wrong, or a resumed run names code that is not trusted.
        KeyboardInterrupt: with a sentence that says how to go on.
    """
    run, resume = RunFolder(arguments.pop("out")), arguments.pop("resume")
    wandb, trust = arguments.pop("wandb"), arguments.pop("trust")
    recorded: dict[str, Any] = {}
    if resume:
        recorded = run.asked()
        check_trusted(recorded, arguments, run.path, trust=trust)
        if recorded.get("latency_table") and (run.path / LATENCY).exists():
            adopt(run.path / LATENCY)
    else:
        run.check_new()
    asked = request(arguments, recorded)
    if wandb:
        check_wandb()
    env = _make_env(asked)
    with closing(env):
        return _search(env, asked, run, resume=resume, wandb=wandb)


def _search(
    env: gym.Env[Any, Any], asked: Request, run: RunFolder, *, resume: bool, wandb: bool
) -> Outcome:
    problem: PruningProblem = env.unwrapped.problem  # type: ignore[attr-defined]
    print(_introduction(problem, budgets_of(env)), flush=True)
    try:
        result = run_search(
            env,
            asked.search["agent"],
            asked.search["evaluations"],
            agent_seed=asked.search["agent_seed"],
            out=run.path,
            resume=resume,
            start=asked.search["start"],
            shortlist=asked.search["shortlist"],
            repair_images=_repair_images(env, asked.search),
            points=asked.search["points"],
            init_from=asked.search["init_from"],
            progress=is_shown(),
            wandb=wandb,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_interrupted(run)) from None
    print(_summary(result, env), flush=True)
    budgets = [point.budget for point in result.sweep]
    tested = _test(run.path, budgets, problem.baseline, asked.config)
    return _outcome(result, env) | {"accuracy": tested}


def _outcome(result: SearchResult, env: gym.Env[Any, Any]) -> Outcome:
    """Return what was found; the networks themselves are files of the run folder."""
    own: PruningEnv = env.unwrapped  # type: ignore[assignment]
    cost = own.problem.baseline_cost
    return {
        "folder": str(result.folder),
        "ended": result.ended,
        "evaluations": len(result.records),
        "screened": result.screened,
        "reward_name": own.reward_name,
        "baseline": {"macs": cost.macs, "params": cost.params},
        "groups": [group.name for group in own.problem.groups],
        "best": {"reward": result.reward, **asdict(result.best)} if not result.sweep else None,
        "delivery": result.delivery,
        "times": _compared(own.problem, result.best, result.times) if not result.sweep else None,
        "shortlist": [asdict(one) for one in result.shortlist],
        "sweep": [
            {
                "budget": point.budget,
                "origin": point.origin,
                "reward": point.reward,
                **asdict(point.searched),
                "delivery": point.delivery,
                "times": _compared(own.problem, point.searched, point.times),
                "file": network_file(point.budget),
            }
            for point in result.sweep
        ],
    }


def _compared(
    problem: PruningProblem, best: Evaluation, measured: DeliveredTimes | None
) -> Outcome | None:
    """Return the times of baseline and delivered network [ms]; None without a budget of them."""
    predicted = predict_latency(problem, best)
    if predicted is None:
        return None
    return {"predicted_ms": predicted, "measured_ms": asdict(measured) if measured else None}


def _make_env(asked: Request) -> gym.Env[Any, Any]:
    """Make the environment, once the agent and the user's own code are found."""
    import_own(asked.search["agent"], "agent")
    find_agent(asked.search["agent"])
    import_own(asked.config.get("network"), "network")
    import_own(asked.config.get("reward"), "reward")
    torch.set_num_threads(asked.search["threads"])
    print(_loading(asked), flush=True)
    return gym.make(asked.environment, **asked.config)


def _loading(asked: Request) -> str:
    """Say what is loaded, which may take a while."""
    config = {
        **defaults(config_of(asked.environment)),
        **gym.spec(asked.environment).kwargs,
        **asked.config,
    }
    count, images, network = config["num_images"], config["images"], config["network"]
    own = names_code(network) and config["weights"] == "published"  # it has what its code gives it
    return (
        f"loading {network} with {'given' if own else config['weights']} weights, and preparing "
        f"{'all' if count is None else count} {f'images of {images}' if images else 'images'}"
    )


def _repair_images(env: gym.Env[Any, Any], search: SearchConfig) -> Tensor | None:
    """Load the images to repair on; None for the default ones."""
    own: PruningEnv = env.unwrapped  # type: ignore[assignment]
    count = search["repair_images"]
    if not (search["shortlist"] and isinstance(count, int)):
        return None
    found = own.repair_images(count)
    if len(found) < count:
        raise ValueError(
            f"there are no {count} images to repair on, only {len(found)} with views: lower "
            "--repair-images or leave it out, or give --shortlist 0"
        )
    return found


def _interrupted(run: RunFolder) -> str:
    if not run.begun:
        return "interrupted"
    sweep = read_sweep(run.path)
    finished = f" and {len(sweep['points'])} of {len(sweep['budgets'])} networks" if sweep else ""
    command = resume_command(run.path, run.asked())
    how = f": go on with `{command}`" if command else ""
    return f"interrupted after {len(run.records())} evaluations{finished}{how}"


def _introduction(problem: PruningProblem, budgets: tuple[float, float]) -> str:
    cost = problem.baseline_cost
    low, high = budgets
    allowed = f"{low:.1%}" if low == high else f"{low:.1%} to {high:.1%}"
    metric = problem.budget_metric
    counted = METRIC_NAMES.get(metric, metric)
    hint = ""
    if metric in TIMED and problem.network.limits.round_to == 1:
        hint = (
            f"; counts of channels that are multiples of {LANES} (--round-to {LANES}) are mostly "
            "faster, and their times are predicted better"
        )
    return (
        f"{described(problem.baseline)}: {cost.macs / 1e6:.2f} M MACs, "
        f"{cost.params / 1e6:.3f} M params, {len(problem.groups)} groups of channels; "
        f"{allowed} of the {counted} may remain{hint}"
    )


def _summary(result: SearchResult, env: gym.Env[Any, Any]) -> str:
    own: PruningEnv = env.unwrapped  # type: ignore[assignment]
    reward = own.reward_name
    if reward == "similarity":
        reward = f"{own.problem.similarity} similarity"
    folder = result.folder
    lines = (_sweep if result.sweep else _single)(result, own.problem, reward)
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
    folder: Path, budgets: Sequence[float], baseline: Baseline, config: Mapping[str, Any]
) -> Outcome | None:
    """Print the accuracy on labelled test images if they are at hand, or how to get it.

    The baseline is not tested where its weights come with an accuracy.

    Returns:
        What was found; None without the images.
    """
    data = dataset_for(baseline.input_shape, baseline.num_classes)
    if data and baseline.weights in ("published", "embedded"):
        device = config.get("device", options(EnvConfig)["device"].default)
        places = {"data_root": config.get("data_root"), "download": False}
        try:
            test_set = fitting_test_set({"data": data, **places}, baseline)
        except (OSError, ValueError) as error:
            print(f"not tested: {error}")
        else:
            stated = stated_top1(baseline, data, len(test_set.images))
            known = "" if stated is None else "; the baseline's top-1 is stated with its weights"
            print(f"testing on {data}{known}", flush=True)
            networks = pruned_networks(folder, budgets)
            return print_accuracy(folder, budgets, networks, baseline, test_set, device, stated)
    if baseline.packing is not None:
        return None  # no data set has several inputs
    own = network_options(baseline.name, baseline.arguments)
    asked = f" --data {data}" if data else ""
    print(f"next: lfgcl evaluate {shlex.quote(str(folder))}{asked}{own}")
    return None


def _single(result: SearchResult, problem: PruningProblem, reward: str) -> list[str]:
    """Return a line on what was found, and what it costs."""
    best, whole = result.best, problem.baseline_cost
    predicted, measured = predict_latency(problem, best), result.times
    screened = f", {result.screened} screened" if result.screened else ""
    return [
        f"{result.ended}{screened}; the best has {reward} {result.reward:.4f}"
        f"{_of_shortlist(result)}",
        f"MACs   {whole.macs:>13,} -> {best.macs:>13,} ({best.macs_ratio:.1%})",
        f"params {whole.params:>13,} -> {best.params:>13,} ({best.params_ratio:.1%})",
        *([_times(*predicted, "predicted")] if predicted else []),
        *(
            [_times(measured.baseline.median, measured.delivered.median, "measured whole")]
            if measured
            else []
        ),
        *([say_delivery(result.delivery)] if result.delivery else []),
    ]


def _times(before: float, after: float, how: str) -> str:
    return f"time   {before:>10.3g} ms -> {after:>10.3g} ms ({after / before:.1%}), {how}"


def _of_shortlist(result: SearchResult) -> str:
    """Say what the repair of the shortlist's winner brought, and where it came from."""
    if not result.shortlist:
        return ""
    winner = result.shortlist[0]
    text = "" if winner.score is None else f", outputs {winner.score:.4f} as delivered"
    if winner.origin != "allocation":
        return text
    text += "; it is the allocation by sensitivities"
    others = [one.reward for one in result.shortlist if one.origin != "allocation"]
    return text + (f" (the best reward of others: {max(others):.4f})" if others else "")


def _score(score: float | None) -> str:
    return "" if score is None else f"{score:.4f}"


def _sweep(result: SearchResult, problem: PruningProblem, reward: str) -> list[str]:
    """Return a table with a line for every budget."""
    more = result.sweep[-1].evaluations - len(result.records)
    timed = problem.budget_metric == "latency"
    times = ["predicted [ms]", "", "measured [ms]", ""] if timed else []
    heads = ["budget", "MACs", "", "params", "", *times, reward, "repaired"]
    cells = [[*heads, "origin", "handed over"]]
    for point in result.sweep:
        kept = point.searched
        cells.append(
            [
                label(point.budget),
                f"{kept.macs:,}",
                f"{kept.macs_ratio:.1%}",
                f"{kept.params:,}",
                f"{kept.params_ratio:.1%}",
                *(_times_of(problem, point) if timed else []),
                f"{point.reward:.4f}",
                _score(point.shortlist[0].score) if point.shortlist else "",
                point.origin,
                point.delivery,
            ]
        )
    return [
        f"{result.ended} on budgets from {result.sweep[0].budget:g} to "
        f"{result.sweep[-1].budget:g}, and {more} more for the sweep of {len(result.sweep)}",
        *columns(cells, [*["right"] * len(heads), "left", "left"]),
        *_deliveries({point.delivery for point in result.sweep}),
    ]


def _deliveries(found: Collection[Delivery]) -> list[str]:
    """Return what the words of a sweep's last column mean."""
    return [f"{word}: the network {text}" for word, text in DELIVERIES.items() if word in found]


def _times_of(problem: PruningProblem, point: Point) -> list[str]:
    """Return predicted and measured times of a sweep's network, and their shares."""
    predicted, measured = predict_latency(problem, point.searched), point.times
    cells = [f"{predicted[1]:.3g}", f"{predicted[1] / predicted[0]:.1%}"] if predicted else ["", ""]
    if measured is None:
        return [*cells, "", ""]
    return [*cells, f"{measured.delivered.median:.3g}", f"{measured.share:.1%}"]
