"""What an agent must provide, and finding one by name."""

import importlib
import pkgutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym

from lfgcl_env import zoo
from lfgcl_env.names import closest

StepCallback = Callable[[dict[str, Any], dict[str, Any]], bool]
"""Called with an agent's locals and globals after each of its steps; False ends the learning."""


class Agent(Protocol):
    """Anything that searches by stepping an environment; Stable-Baselines3's algorithms are.

    An agent may also have ``save(path)``, which writes one file at exactly that path.
    """

    def learn(self, total_timesteps: int, callback: StepCallback) -> Any:
        """Step the environment until ``callback`` returns False, which is asked after every step.

        Args:
            total_timesteps: the most steps there may be; the callback usually ends it far earlier.
            callback: see ``StepCallback``.
        """

    def predict(self, observation: Any) -> tuple[Any, Any]:
        """Return the action for an observation, and a state (None for agents without one)."""


AgentFactory = Callable[[gym.Env[Any, Any], int], Agent]
"""Makes an agent for an environment with a seed, which decides all that the agent does.

The environment is as ``gym.make`` gives it: actions in [0, 1], observations (groups, features).
Wrapping it, as Stable-Baselines3 likes it, is the factory's business.
"""


def find_agent(name: str) -> AgentFactory:
    """Return the factory of an agent.

    Args:
        name: ``"ddpg"``, ``"td3"``, ``"sac"`` or ``"ppo"`` of Stable-Baselines3 with the settings
            of :mod:`lfgcl_env.zoo`; ``"module:factory"``; or a file in the checkout's folder
            ``agents/``, such as ``"random"``.

    Raises:
        ValueError: if there is none; the message names the nearest.
        ImportError: if Stable-Baselines3 is missing; names the extra to install.

    >>> agent = find_agent("ddpg")
    """
    if name in zoo.ALGORITHMS:
        zoo.check_installed()
        return partial(zoo.make, name)
    if ":" in name:
        return _imported(name)
    _reach_checkout()
    if name in local_agents():
        return _imported(f"agents.{name}:make")
    choices = [*zoo.ALGORITHMS, *local_agents()]
    hint = closest(name, choices)
    if not local_agents():
        hint = (
            " Agents such as random are files in the folder agents/ of a checkout of lfgcl_env, "
            "which is not importable here: run `pip install -e .` there."
        )
    raise ValueError(
        f"unknown agent {name!r}: choose one of {', '.join(choices)}, or 'module:factory'.{hint}"
    )


def local_agents() -> list[str]:
    """Names of the agents in the checkout's folder ``agents/``; none if it cannot be imported."""
    _reach_checkout()
    try:
        folder = importlib.import_module("agents").__path__
    except (ImportError, AttributeError):
        return []
    files = [Path(entry) for entry in folder]
    if not any((path / "random.py").is_file() for path in files):
        return []  # somebody else's package of that name
    return sorted(m.name for m in pkgutil.iter_modules(folder) if not m.name.startswith("_"))


def _reach_checkout() -> None:
    """Make ``agents/`` beside an editable install of this package importable from anywhere."""
    checkout = Path(__file__).parents[1]
    if (checkout / "agents" / "random.py").is_file() and str(checkout) not in sys.path:
        sys.path.append(str(checkout))


def _imported(name: str) -> AgentFactory:
    module_name, _, factory_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError, TypeError) as error:
        raise ValueError(
            f"cannot import {module_name!r} of agent {name!r} ({error}): give an importable "
            "'module:factory'"
        ) from error
    factory: AgentFactory | None = getattr(module, factory_name, None)
    if not callable(factory):
        near = closest(factory_name, vars(module))
        raise ValueError(f"module {module_name!r} has no function {factory_name!r}.{near}")
    return factory
