"""Write the pages of the site that are made from the package: `make docs` calls it."""

import inspect
import json
import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import gymnasium as gym
import numpy as np
from notebooks import code_cell, text_cell, write_notebook
from PIL import Image
from run_examples import cells, missing, outputs

from lfgcl_env import baselines, zoo
from lfgcl_env.cli.command_line import command_line
from lfgcl_env.cli.list import agent_line
from lfgcl_env.cli.parser import commands_of
from lfgcl_env.envs import FEATURES as EMBEDDED
from lfgcl_env.envs import AMCEnv, LFGCLEnv
from lfgcl_env.envs.amc_state import FEATURES as AMC_STATE
from lfgcl_env.envs.flat_env import FlatLFGCLEnv
from lfgcl_env.envs.registration import ANY_IDS, FLAT_IDS, GLOBAL_IDS, LAYERWISE_IDS
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PrunableNetwork
from lfgcl_env.search.protocol import own_agents

HERE = Path(__file__).parent
MADE = HERE / "_made"
"""Where they are written; git ignores it."""

IDS = {LFGCLEnv: GLOBAL_IDS, FlatLFGCLEnv: FLAT_IDS, AMCEnv: LAYERWISE_IDS}
"""Ids of environments, and their networks, by class."""

DRAWN = {LFGCLEnv: "LFGCLEnv", FlatLFGCLEnv: "LFGCLEnv", AMCEnv: "AMCEnv"}
"""The picture of a class."""

API = {
    "Environments": ["lfgcl_env.envs", "lfgcl_env.envs.together"],
    "Pruning": ["lfgcl_env.pruning", "lfgcl_env.pruning.score.judge"],
    "Search": [
        "lfgcl_env.search.run_search",
        "lfgcl_env.search.protocol",
        "lfgcl_env.search.result",
        "lfgcl_env.search.shortlist",
        "lfgcl_env.search.budget_sweep",
    ],
    "Agents": [
        *[f"lfgcl_env.agents.{name}" for name in own_agents()],
        "lfgcl_env.agents._ask_tell",
    ],
    "Methods from the literature": [
        f"lfgcl_env.baselines.{module.name}" for module in iter_modules(baselines.__path__)
    ],
    "Engines": ["lfgcl_env.engine"],
    "Recovery": ["lfgcl_env.recovery"],
    "Networks": ["lfgcl_env.networks"],
    "Images": ["lfgcl_env.images"],
    "Stable-Baselines3": ["lfgcl_env.zoo"],
    "Export": ["lfgcl_env.export"],
    "Latency": ["lfgcl_env.latency.measuring", "lfgcl_env.latency.table"],
    "Run folders": [
        "lfgcl_env.runs.run_folder",
        "lfgcl_env.runs.record",
        "lfgcl_env.runs.best",
        "lfgcl_env.page",
    ],
    "Leaderboard": ["lfgcl_env.leaderboard"],
}
"""Modules of the public interface, by page."""

INHERITED = {
    "lfgcl_env.envs": "Env, SyncVectorEnv, VectorEnv",
    "lfgcl_env.engine": "Executor, Exception, BaseException",
    "lfgcl_env.pruning": "Module, Exception, tuple",
}
"""Modules whose classes show what they inherit, except from these."""


def write_all() -> None:
    """Write all pages; those that have not changed are left alone and not read anew."""
    draw_environments()
    pages = {
        **environments(),
        "agents.md": agents(),
        "commands.md": commands(),
        "leaderboard.md": leaderboard(),
        **{f"api/{_file(title)}": api(title, modules) for title, modules in API.items()},
        "api/index.md": _index("API reference", [_file(title) for title in API]),
        **examples(),
        "changelog.md": included("CHANGELOG.md"),
        "contributing.md": included("CONTRIBUTING.md"),
    }
    for path in MADE.rglob("*.md"):
        if path.relative_to(MADE).as_posix() not in pages:
            path.unlink()
    for name, text in pages.items():
        path = MADE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def environments() -> dict[str, str]:
    """Return a page for every id: what is known of it, a picture, and its class's docstring."""
    networks: dict[str, PrunableNetwork] = {}
    pages = {}
    for kind, ids in IDS.items():
        first, _, rest = (inspect.getdoc(kind) or "").partition("\n")
        picture = f"![Steps on ResNet-20, rendered](../pictures/{DRAWN[kind]}.gif)"
        body = _relative(_whole_rows(rest.strip()), "../../")
        body = body.replace("```python\n>>>", "```pycon\n>>>")
        for env_id, name in ids.items():
            if name not in networks:
                networks[name] = PrunableNetwork(load_baseline(name, weights="random"))
            facts = _table(["", ""], _facts(env_id, name, kind, networks[name]))
            pages[f"environments/{env_id}.md"] = (
                f"# {env_id}\n\n{first}\n\n{facts}\n\n{picture}\n\n{body}\n"
            )
    every = [f"{env_id}.md" for ids in IDS.values() for env_id in ids]
    pages["environments/index.md"] = _index("All ids", every)
    return pages


def _whole_rows(text: str) -> str:
    """Join the rows of tables that go on in the next line, whose first cell is empty."""
    return re.sub(r" \|\n\| \| ", " ", text)


def _facts(env_id: str, name: str, kind: type, network: PrunableNetwork) -> list[list[str]]:
    """Return the rows of an id's table."""
    rows = [["make", f'`gym.make("lfgcl_env:{env_id}")`']]
    groups, cost = len(network.groups), network.baseline_cost
    if env_id in ANY_IDS:
        rows.append(["network", "any, by `network=...`"])
    else:
        width = len(EMBEDDED)
        spaces = {
            LFGCLEnv: (f"Box(0, 1, ({groups},))", f"Box(-1, 1, ({groups}, {width}))"),
            FlatLFGCLEnv: (f"Box(0, 1, ({groups},))", f"Box(-1, 1, ({groups * width},))"),
            AMCEnv: ("Box(0, 1, (1,))", f"Box(0, 1, ({len(AMC_STATE)},))"),
        }[kind]
        rows += [
            ["network", f"`{name}`, inputs {network.baseline.input_shape}"],
            ["MACs, parameters", f"{cost.macs:,}, {cost.params:,}"],
            ["groups of channels", str(groups)],
            ["action space", f"`{spaces[0]}`"],
            ["observation space", f"`{spaces[1]}`"],
        ]
    given = ", ".join(f"`{key}={value!r}`" for key, value in gym.spec(env_id).kwargs.items())
    return [*rows, ["arguments of the id", given]]


def draw_environments() -> None:
    """Draw steps of both environments as animations, unless they are there."""
    for env_id, kind in (("LFGCL-ResNet20-v0", LFGCLEnv), ("AMC-ResNet20-v0", AMCEnv)):
        path = MADE / "pictures" / f"{kind.__name__}.gif"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        repair = {"repair": "least_squares"} if kind is LFGCLEnv else {"reward": "similarity"}
        env = gym.make(env_id, images="embedded", num_images=32, render_mode="rgb_array", **repair)
        env.reset(seed=0)
        env.action_space.seed(0)
        frames = [_frame(env)]
        for _ in range(9):
            ended = env.step(env.action_space.sample())[2]
            frames.append(_frame(env))
            if ended:
                env.reset()
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=700, loop=0)


def _frame(env: gym.Env) -> Image.Image:
    return Image.fromarray(np.asarray(env.render())).convert("P")


def agents() -> str:
    """Return the page of all agents, and of the settings of Stable-Baselines3's."""
    own = [[f"`{name}`", agent_line(name)] for name in own_agents()]
    parts = [
        "# All agents and settings\n\n"
        "`--agent NAME` takes any of them, and `module:factory` your own, see "
        "[Your own network, images, reward and agent](../own_network.md#agent).\n\n"
        f"## Of this package\n\n{_table(['agent', ''], own)}\n\n"
        "## Of Stable-Baselines3\n\nThese settings are files that rl_zoo3 reads as well; each says "
        'how it was chosen. `lfgcl_env.zoo.path("ddpg")` is the path of one.'
    ]
    for name in zoo.ALGORITHMS:
        text = Path(zoo.path(name)).read_text(encoding="utf-8").strip()
        parts.append(f"### {name}\n\n```yaml\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def commands() -> str:
    """Return the help of every command."""
    parts = [
        "# All commands and options\n\nWhat `lfgcl COMMAND --help` prints. "
        "[The command `lfgcl`](../command.md) explains it."
    ]
    for name, parser in commands_of(command_line()).items():
        parts.append(f"## lfgcl {name}\n\n```text\n{parser.format_help().strip()}\n```")
    return "\n\n".join(parts) + "\n"


def leaderboard() -> str:
    """Return the entries of the leaderboard, by network and budget, the best first."""
    path = HERE.parent / "benchmarks" / "leaderboard.jsonl"
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    problems: dict[tuple[str, str, float], list[dict]] = {}
    for entry in entries:
        problem = entry["problem"]
        key = (problem["network"], problem["weights"], problem["budget"])
        problems.setdefault(key, []).append(entry)
    parts = [
        f"# Entries of the leaderboard\n\n{len(entries)} entries of "
        "`benchmarks/leaderboard.jsonl`. `lfgcl validate` measures every number of them anew, see "
        "[Leaderboard](../leaderboard.md). Top-1 is on CIFAR-10's test images, in percent, before "
        "any training. Similarities are comparable within a table where the measure is the same."
    ]
    for (network, weights, budget), found in sorted(problems.items()):
        found.sort(key=lambda e: (-(e["top1"] or 0), -e["similarity"]))
        rows = [
            [
                e["method"],
                e["author"],
                f"{e['evaluations']:,}",
                f"{e['macs']:,}",
                f"{e['similarity']:.4f}",
                e["problem"]["similarity"],
                "" if e.get("top1") is None else f"{e['top1']:.2f}",
            ]
            for e in found
        ]
        heads = ["method", "author", "evaluations", "MACs", "similarity", "measure", "top-1"]
        parts.append(
            f"## {network}, {weights} weights, {budget:.0%} of the MACs\n\n{_table(heads, rows)}"
        )
    return "\n\n".join(parts) + "\n"


def api(title: str, modules: list[str]) -> str:
    """Return a page of the public interface."""
    parts = [f"# {title}"]
    for name in modules:
        module = import_module(name)
        names = [n for n in getattr(module, "__all__", []) if not n.startswith("__")]
        lines = [f".. automodule:: {name}"]
        if names:
            lines.append(f"   :members: {', '.join(names)}")
            lines.append("   :imported-members:")
        if name in INHERITED:
            lines.append(f"   :inherited-members: {INHERITED[name]}")
        body = "\n".join(lines)
        parts.append(f"## {name}\n\n```{{eval-rst}}\n{body}\n```")
    return "\n\n".join(parts) + "\n"


def examples() -> dict[str, str]:
    """Return a page for every example."""
    files = sorted((HERE.parent / "examples").glob("*.py"))
    pages = {f"examples/{path.stem}.md": example(path) for path in files}
    return pages | {"examples/index.md": _index("Examples", [Path(name).name for name in pages])}


def example(path: Path) -> str:
    """Return its page: cells of text, its code, and what that gives; write it as a notebook too."""
    folder = MADE / "outputs" / path.stem
    lacking = missing(path)
    found = iter(() if lacking else outputs(path, folder))
    parts, notebook = [], []
    for is_code, body in cells(path.read_text(encoding="utf-8")):
        if not is_code:
            parts.append(re.sub(r"^# ?", "", body, flags=re.MULTILINE).strip())
            notebook.append(text_cell(parts[-1]))
            continue
        parts.append(f"```python\n{body}\n```")
        printed, pictures = next(found, ("", []))
        if printed:
            parts.append(f"```text\n{printed.rstrip()}\n```")
        parts += [f"![{path.stem}](../outputs/{path.stem}/{name})" for name in pictures]
        notebook.append(code_cell(body, printed, [folder / name for name in pictures]))
    write_notebook(MADE / "notebooks" / f"{path.stem}.ipynb", notebook)
    about = (
        f"[{path.name}](../../../examples/{path.name}) is a script that Jupytext opens as a "
        f"notebook; here is the {{download}}`notebook <../notebooks/{path.stem}.ipynb>`."
    )
    if lacking:
        about += f" What it prints is not shown, for want of `{'`, `'.join(lacking)}`."
    parts.insert(1, about)
    return "\n\n".join(parts) + "\n"


def included(name: str) -> str:
    """Return a page that is a file of the repository's root."""
    text = (HERE.parent / name).read_text(encoding="utf-8")
    return _relative(text.replace("](docs/", "](../"), "../")


def _relative(text: str, up: str) -> str:
    """Turn names of pages in running text into links."""
    return re.sub(r"(?<![\w/`(\]])docs/(\w+)\.md", rf"[\1]({up}\1.md)", text)


def _file(title: str) -> str:
    return f"{title.lower().replace(' ', '-')}.md"


def _index(title: str, files: list[str]) -> str:
    lines = "\n".join(file.removesuffix(".md") for file in files)
    return f"# {title}\n\n```{{toctree}}\n:maxdepth: 1\n\n{lines}\n```\n"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    cells = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


if __name__ == "__main__":
    write_all()
