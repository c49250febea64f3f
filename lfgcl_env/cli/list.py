"""``lfgcl list``: all that can be named on the command line."""

import ast
import inspect
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lfgcl_env import zoo
from lfgcl_env.cli.colour import paint
from lfgcl_env.cli.outcome import Outcome
from lfgcl_env.cli.targets import default_weights
from lfgcl_env.cli.text import columns
from lfgcl_env.config import GlobalConfig, options
from lfgcl_env.envs.registration import ALL_IDS
from lfgcl_env.networks import network_names
from lfgcl_env.pruning.registries import CHOICES
from lfgcl_env.search.protocol import own_agents


def show_names(_: dict[str, Any]) -> Outcome:
    """Print environments, networks, agents, and the names that options accept."""
    environments = [[name, network, default_weights(name)] for name, network in ALL_IDS.items()]
    _print("environments", environments)
    own = ["torchvision:NAME", "package.module:function"]
    _print("networks", [[name] for name in (*network_names(), *own)])
    missing = " (not installed: run `pip install lfgcl-env[sb3]`)"
    sb3 = "Stable-Baselines3" + ("" if find_spec("stable_baselines3") else missing)
    agents = [[name, sb3] for name in zoo.ALGORITHMS]
    agents += [[name, agent_line(name)] for name in own_agents()]
    _print("agents", [*agents, ["module:factory", "your own, see lfgcl_env.search.protocol"]])
    for argument, choices in CHOICES.items():
        rows = [[name, _first_line(choice)] for name, choice in choices.items()]
        _print(f"--{argument.replace('_', '-')}", rows)
    _print("--reward", [[options(GlobalConfig)["reward"].help]])
    return {
        "environments": [
            dict(zip(("id", "network", "weights"), row, strict=True)) for row in environments
        ],
        "networks": network_names(),
        "agents": dict(agents),
        "options": {
            argument: {name: _first_line(choice) for name, choice in choices.items()}
            for argument, choices in CHOICES.items()
        },
    }


def _print(title: str, rows: list[list[str]]) -> None:
    print(paint(title, "bold"))
    for line in columns(rows):
        print(f"  {line}")


def agent_line(name: str) -> str:
    """Return the first line of an agent's file, without importing what it needs."""
    spec = find_spec(f"lfgcl_env.agents.{name}")
    assert spec is not None
    assert spec.origin is not None
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
    return (text or "").partition("\n")[0]


def _first_line(choice: object) -> str:
    """Return the first line of what documents a choice, or its text if it is text."""
    text = choice if isinstance(choice, str) else inspect.getdoc(getattr(choice, "compare", choice))
    return re.sub(r":\w+:`~?([^`]+)`", r"\1", (text or "").partition("\n")[0])
