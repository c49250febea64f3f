"""What an agent must provide, and finding one by name."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import gymnasium as gym

from lfgcl_env import zoo
from lfgcl_env.edge.choices import closest
from lfgcl_env.edge.named_code import import_named
from lfgcl_env.runs.run_folder import RunWriteError

StepCallback = Callable[[dict[str, Any], dict[str, Any]], bool]
"""Called with an agent's locals and globals after each of its steps; False ends the learning."""


class AgentError(RuntimeError):
    """An agent raised; the cause is its exception. What was scored is kept."""


class Agent(Protocol):
    """Anything that searches by stepping an environment; Stable-Baselines3's algorithms are.

    An agent may also have, as those have:

    - ``save(path)``, which writes one file at exactly that path;
    - ``set_parameters(path)``, which takes over what an agent saved there has learnt, and raises
      if that does not fit; ``lfgcl prune --init-from`` needs both.
    - ``env``, if it wrapped the environment for itself: what its ``predict`` observes and answers
      (``get_env()`` for the vectorised environments of Stable-Baselines3).
    - ``losses``, a dictionary of numbers by name: the latest, to be logged.
    """

    def learn(self, total_timesteps: int, callback: StepCallback) -> Any:
        """Step the environment until ``callback`` returns False, which is asked after every step.

        Args:
            total_timesteps: the most steps there may be; the callback usually ends it far earlier.
            callback: see ``StepCallback``.
        """

    def predict(self, observation: Any, *, deterministic: bool = False) -> tuple[Any, Any]:
        """Return the action for an observation, and a state (None for agents without one).

        Args:
            observation: of the environment, its budget among it.
            deterministic: without exploration.
        """


AgentFactory = Callable[[gym.Env[Any, Any], int], Agent]
"""Makes an agent for an environment with a seed, which decides all that the agent does.

The environment is as ``gym.make`` gives it: actions in [0, 1], observations (groups, features).
Wrapping it, as Stable-Baselines3 likes it, is the factory's business.
"""


@contextmanager
def agents_errors(when: str | Callable[[], str]) -> Iterator[None]:
    """Tell what an agent raises from everybody else's exceptions.

    Args:
        when: ends the sentence that says so.

    Raises:
        AgentError: from what was raised; a run folder that cannot be written is not the agent's.
    """
    try:
        yield
    except RunWriteError:
        raise
    except Exception as error:
        said = when if isinstance(when, str) else when()
        raise AgentError(f"the agent raised {type(error).__name__} {said}") from error


def find_agent(name: str) -> AgentFactory:
    """Return the factory of an agent.

    Args:
        name: ``"ddpg"``, ``"td3"``, ``"sac"``, ``"ppo"`` of Stable-Baselines3, ``"tqc"`` or
            ``"crossq"`` of sb3-contrib, with the settings of :mod:`lfgcl_env.zoo`; an agent of
            :mod:`lfgcl_env.agents`, such as ``"random"``; or ``"module:factory"``.

    Raises:
        ValueError: if there is none; the message names the nearest.
        ImportError: if an agent's package is missing; names the extra to install.

    >>> agent = find_agent("ddpg")
    """
    if name in zoo.ALGORITHMS:
        zoo.check_installed(name)
        return partial(zoo.make, name)
    if ":" in name:
        return import_named(name, "agent")
    if name in own_agents():
        return import_named(f"lfgcl_env.agents.{name}:make", "agent")
    choices = [*zoo.ALGORITHMS, *own_agents()]
    raise ValueError(
        f"unknown agent {name!r}: choose one of {', '.join(choices)}, or 'module:factory'."
        + closest(name, choices)
    )


def own_agents() -> list[str]:
    """Return the names of the agents in :mod:`lfgcl_env.agents`.

    >>> "random" in own_agents()
    True
    """
    folder = importlib.import_module("lfgcl_env.agents").__path__
    return sorted(m.name for m in pkgutil.iter_modules(folder) if not m.name.startswith("_"))
