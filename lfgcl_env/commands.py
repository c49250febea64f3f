"""What the commands of ``lfgcl`` do; :mod:`lfgcl_env.cli` reads their arguments."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

from lfgcl_env import zoo
from lfgcl_env.agent import find_agent, local_agents
from lfgcl_env.images import load_test_set, top1
from lfgcl_env.logs import check_wandb
from lfgcl_env.names import closest
from lfgcl_env.networks import Baseline, load_baseline, network_names
from lfgcl_env.options import DEFAULTS
from lfgcl_env.pruning import PruningProblem, load_pruned
from lfgcl_env.registration import GLOBAL_IDS
from lfgcl_env.runs import PRUNED, RunFolder
from lfgcl_env.search import SearchResult, search

_MAY_DIFFER = ("data_root", "download")
_METRIC_NAMES = {"macs": "MACs", "params": "params"}
_NOT_FOR_ENV = ("target", "agent", "evaluations", "threads", "shortlist", "repair_images")


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
    _check_device(asked["device"])
    torch.set_num_threads(asked["threads"])
    env = make_env(asked["target"], {k: v for k, v in asked.items() if k not in _NOT_FOR_ENV})
    problem: PruningProblem = env.unwrapped.problem  # type: ignore[attr-defined]
    print(_introduction(problem), flush=True)
    more = env.unwrapped.other_images(asked["repair_images"]) if asked["shortlist"] else None  # type: ignore[attr-defined]
    if asked["shortlist"] and more is None:
        raise ValueError(
            f"there are no {asked['repair_images']} images to repair on besides the "
            f"{problem.images} for the search: lower --repair-images, or give --shortlist 0"
        )
    try:
        result = search(
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
            progress=True,
            wandb=wandb,
        )
    except KeyboardInterrupt:
        done = f"after {len(run.records())} evaluations: go on with " if run.begun else ""
        command = f"`lfgcl prune --resume --out {shlex.quote(out)}`" if done else ""
        raise KeyboardInterrupt(f"interrupted {done}{command}".strip()) from None
    print(_summary(result, problem))


def evaluate(arguments: dict[str, Any]) -> None:
    """``lfgcl evaluate``: accuracy on labelled test images, which the search never saw."""
    path = Path(arguments["run"])
    device = _check_device(arguments["device"])
    seed = 0
    if path.is_dir():
        run = RunFolder(path)
        seed = run.described()["arguments"].get("seed", 0) if run.begun else 0
        path = path / PRUNED
        if run.begun and not path.exists():
            raise FileNotFoundError(
                f"the search in {run.path} has not ended: `lfgcl prune --resume --out {run.path}` "
                "goes on with it"
            )
    pruned = load_pruned(path)
    structure: dict[str, Any] = pruned.pruned_structure  # type: ignore[assignment]
    baseline = load_baseline(
        structure["network"],
        structure["weights"],
        input_shape=structure["input_shape"],
        normalization=structure["normalization"],
        seed=seed,
        **structure["arguments"],
    )
    test_set = load_test_set(
        arguments["data"],
        normalization=baseline.normalization,
        root=arguments["data_root"],
        download=arguments["download"],
    )
    shape, classes = tuple(test_set.images.shape[1:]), int(test_set.labels.max()) + 1
    if (shape, classes) != (baseline.input_shape, baseline.num_classes):
        raise ValueError(
            f"{arguments['data']} has images {shape} of {classes} classes, and the network takes "
            f"{baseline.input_shape} and tells {baseline.num_classes} classes apart"
        )
    before = top1(baseline.network, test_set, device=device)
    after = top1(pruned, test_set, device=device)
    cost = structure["evaluation"]
    whole = {m: round(cost[m] / cost[f"{m}_ratio"]) for m in _METRIC_NAMES}
    print(f"{test_set.name}: {len(test_set.images):,} images")
    print(f"{'':10}{'baseline':>14}{'pruned':>14}")
    print(f"{'top-1':10}{before:>12.2f} %{after:>12.2f} %{after - before:>+10.2f}")
    for metric, name in _METRIC_NAMES.items():
        print(f"{name:10}{whole[metric]:>14,}{cost[metric]:>14,}{cost[f'{metric}_ratio']:>10.1%}")


def show_network(arguments: dict[str, Any]) -> None:
    """``lfgcl inspect``: groups, cost, lowest budget, and what is left alone."""
    name = arguments["network"]
    if looks_like_id(name):
        name = gym.spec(check_id(name)).kwargs.get("network", name)
    baseline = load_baseline(
        name,
        arguments["weights"],
        input_shape=arguments["input_shape"],
        normalization=arguments["normalization"],
    )
    images = torch.randn(2, *baseline.input_shape, generator=torch.Generator().manual_seed(0))
    problem = PruningProblem(
        baseline, images, budget=1.0, criterion="l1", repair="none", scope=arguments["scope"]
    )
    lines = [["group", "channels", "layers that change"]]
    for group in problem.groups:
        layers = [name for side in ("out", "through", "in") for name in group.layers(side)]
        lines.append([group.name, str(group.channels), ", ".join(dict.fromkeys(layers))])
    for line in _columns(lines):
        print(line)
    cost = problem.baseline_cost
    print(f"\n{len(problem.groups)} groups, {_described(baseline)}")
    print(f"MACs {cost.macs:,} for one input of {baseline.input_shape}, params {cost.params:,}")
    print(f"lowest budget {problem.lowest_budget:.4f} of the MACs")
    if problem.excluded:
        print("\nnot pruned")
        for line in _columns([[e.name, str(e.channels), e.reason] for e in problem.excluded]):
            print(f"  {line}")


def show_names(_: dict[str, Any]) -> None:
    """``lfgcl list``: environments, networks and agents."""
    missing = " (not installed: run `pip install lfgcl-env[sb3]`)"
    sb3 = "Stable-Baselines3" + ("" if find_spec("stable_baselines3") else missing)
    print("environments")
    for line in _columns([[name, network] for name, network in GLOBAL_IDS.items()]):
        print(f"  {line}")
    print("networks")
    for line in (*network_names(), "torchvision:NAME", "package.module:function"):
        print(f"  {line}")
    print("agents")
    agents = [[name, sb3] for name in zoo.ALGORITHMS]
    agents += [[name, f"agents/{name}.py"] for name in local_agents()]
    for line in _columns([*agents, ["module:factory", "your own, see lfgcl_env.agent"]]):
        print(f"  {line}")


def make_env(target: str, options: dict[str, Any]) -> gym.Env[Any, Any]:
    """Make an environment from its id, or ``LFGCL-v0`` with a network.

    Raises:
        ValueError: for an unknown id or network, or arguments that the environment refuses.
    """
    if looks_like_id(target):
        return gym.make(check_id(target), **options)
    return gym.make("LFGCL-v0", network=target, **options)


def looks_like_id(name: str) -> bool:
    """Whether a name is meant for an environment's id rather than a network.

    >>> looks_like_id("LFGCL-ResNet56"), looks_like_id("torchvision:resnet18")
    (True, False)
    """
    return bool(re.search(r"-v\d+$", name)) or name.lower().startswith("lfgcl-")


def check_id(name: str) -> str:
    """Return an environment's id.

    Raises:
        ValueError: if it is not registered; the message names the nearest.
    """
    plain = name.removeprefix("lfgcl_env:")
    ours = [
        env_id
        for env_id, spec in gym.registry.items()
        if str(spec.entry_point).startswith("lfgcl_env.")
    ]
    if plain not in ours:
        raise ValueError(f"unknown environment {name!r}: see `lfgcl list`.{closest(plain, ours)}")
    return plain


def _check_device(name: str) -> str:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"device {name!r} cannot be used here: {reason}") from error
    return name


def _introduction(problem: PruningProblem) -> str:
    cost = problem.baseline_cost
    return (
        f"{_described(problem.baseline)}: {cost.macs / 1e6:.2f} M MACs, "
        f"{cost.params / 1e6:.3f} M params, {len(problem.groups)} groups of channels; "
        f"{problem.budget:.1%} of the {_METRIC_NAMES[problem.budget_metric]} may remain"
    )


def _described(baseline: Baseline) -> str:
    return f"{baseline.name or type(baseline.network).__name__} with {baseline.weights} weights"


def _summary(result: SearchResult, problem: PruningProblem) -> str:
    best, whole, folder = result.best, problem.baseline_cost, result.folder
    data = {10: "CIFAR10", 100: "CIFAR100"}.get(problem.baseline.num_classes, "NAME")
    return "\n".join(
        (
            f"{result.ended}; the best has {problem.similarity} similarity {best.similarity:.4f}"
            + _of_shortlist(result),
            f"MACs   {whole.macs:>13,} -> {best.macs:>13,} ({best.macs_ratio:.1%})",
            f"params {whole.params:>13,} -> {best.params:>13,} ({best.params_ratio:.1%})",
            *(
                f"{folder / name}  {text}"
                for name, text in (
                    (PRUNED, "the pruned network: lfgcl_env.load_pruned(path)"),
                    ("report.txt", "what changed in every layer"),
                    ("tensorboard", "`tensorboard --logdir` shows it"),
                )
                if folder and (folder / name).exists()
            ),
            f"next: lfgcl evaluate {shlex.quote(str(folder))} --data {data}",
        )
    )


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


def _columns(lines: list[list[str]]) -> list[str]:
    """Lines of cells, aligned."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
