"""The protocol of agents, and how to find one by name."""

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
from lfgcl_env.edge.schema import short
from lfgcl_env.engine import WorkerDied
from lfgcl_env.runs.lines import RunWriteError

StepCallback = Callable[[dict[str, Any], dict[str, Any]], bool]
"""Called with an agent's locals and globals after each of its steps; False ends the learning."""


class AgentError(RuntimeError):
    """An agent raised; the cause is its exception. All recorded evaluations are kept."""


class Agent(Protocol):
    """Anything that searches by stepping an environment, as Stable-Baselines3's algorithms do.

    An agent learns from the rewards of ``step``. Of ``info`` it may use ``keep``, ``prune_ratios``
    and ``budget``, which say what was executed. It may also have, as those have:

    - ``save(path)``, which writes one file at exactly that path;
    - ``set_parameters(path)``, which loads what a saved agent has learned, and raises if that does
      not fit; ``lfgcl prune --init-from`` needs both.
    - ``env``, the environment as the agent sees it, if it wrapped it (``get_env()`` for the
      vectorised environments of Stable-Baselines3).
    - ``begin_at(action)``, which is called before ``learn`` with the strategy to go on from, see
      ``start`` of :func:`~lfgcl_env.search.run_search.run_search`.
    - ``learn`` that proposes strategies while others are being scored, as many as
      ``lfgcl_env.envs.together.room_ahead`` allows, has them begun by ``begin_ahead`` (of several
      actions, the best by cheap scores: ``lfgcl_env.envs.choice.Choice``), and steps them in the
      order in which it proposed them.
    - ``losses``, a dictionary of the latest losses by name, to be logged.
    """

    def learn(self, total_timesteps: int, callback: StepCallback) -> Any:
        """Step the environment until ``callback``, called after every step, returns False.

        Args:
            total_timesteps: the most steps; the callback usually ends the learning far earlier.
            callback: see ``StepCallback``.
        """

    def predict(self, observation: Any, *, deterministic: bool = False) -> tuple[Any, Any]:
        """Return the action for an observation, and a state (None for agents without one).

        Args:
            observation: of the environment; it holds the budget.
            deterministic: whether to leave out exploration.
        """


AgentFactory = Callable[[gym.Env[Any, Any], int], Agent]
"""Makes an agent for an environment with a seed, which decides all that the agent does.

The environment is as ``gym.make`` returns it: actions in [0, 1], observations (groups, features).
The factory wraps it where the agent needs another form, as Stable-Baselines3 does.
"""


@contextmanager
def agent_errors(when: str | Callable[[], str]) -> Iterator[None]:
    """Wrap an agent's exceptions in AgentError.

    Args:
        when: ends the sentence that says when it raised.

    Raises:
        AgentError: from the agent's exception. A run folder that cannot be written and a strategy
            that ends workers are no fault of the agent and pass through.
    """
    try:
        yield
    except (RunWriteError, WorkerDied):
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
    if not isinstance(name, str):
        raise ValueError(f"agent must be a name, got {short(name)}")
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
