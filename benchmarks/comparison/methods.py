"""The methods that can be compared, and the environments to which each applies."""

from collections.abc import Callable, Sequence
from typing import Any

from lfgcl_env.baselines import global_threshold, soft_filter
from lfgcl_env.baselines import uniform_ratios as uniform
from study import agent_version

from lfgcl_env.edge.choices import check_choice
from lfgcl_env.search.protocol import AgentFactory, find_agent
from lfgcl_env.zoo import ALGORITHMS

AGENTS = (
    "lfgcl",
    "ddpg",
    "cma_es",
    "random",
    "allocation",
    "cross_entropy",
    "one_plus_one",
    "tpe",
    "td3",
    "sac",
    "tqc",
    "crossq",
    "ppo",
    "gaussian_process",
)
"""Agents of this package, the most interesting first; ``lfgcl prune`` also takes others."""

STRATEGIES: dict[str, Callable[..., Any]] = {
    "uniform": uniform.strategy,
    **{name: getattr(global_threshold, name) for name in ("l1", "l2", "fpgm", "bn_scale", "hrank")},
    "soft_filter": soft_filter.strategy,
}
"""Baselines without a search: from a problem to a strategy. One seed is enough for them."""

SEARCHES = {
    "legr": "lfgcl_env.baselines.legr:make",
    "eagleeye": "lfgcl_env.baselines.eagleeye:make",
    "gnn_rl": "lfgcl_env.baselines.gnn_rl:make",
    "amc": "lfgcl_env.baselines.amc:make",
    "amc_executed": "lfgcl_env.baselines.amc:make_executed",
}
"""Baselines that search, as agents."""

BASELINES = (*STRATEGIES, *SEARCHES)

OWN_ARGUMENTS: dict[str, dict[str, str]] = {
    "soft_filter": {"criterion": soft_filter.CRITERION},
    "eagleeye": {"repair": "batchnorm"},
}
"""Arguments of the environment that are part of a method."""

_LAYERWISE_ONLY = ("amc_executed",)
_GLOBAL_ONLY = (
    *(name for name in AGENTS if name not in ALGORITHMS),
    *("legr", "eagleeye", "gnn_rl"),
)


def applies(name: str, environment: str) -> bool:
    """Return whether a method can be run on an environment.

    Strategies without a search see no reward: they run on the environment without labels alone.
    """
    layerwise = environment.startswith("AMC")
    if name in STRATEGIES:
        return environment == "LFGCL"
    return name not in (_GLOBAL_ONLY if layerwise else _LAYERWISE_ONLY)


def factory(name: str) -> AgentFactory:
    """Return the factory of the agent of this name.

    Raises:
        ValueError: if there is none.
        ImportError: if its package is missing.
    """
    return find_agent(SEARCHES.get(name, name))


def version(name: str) -> str:
    """Return the version of a method's code, see :func:`study.agent_version`."""
    if name in STRATEGIES:
        return agent_version(STRATEGIES[name].__module__)
    return agent_version(SEARCHES.get(name, name))


def check_names(agents: Sequence[str], baselines: Sequence[str]) -> None:
    """Refuse unknown names before anything runs.

    Raises:
        ValueError: for one that is unknown; the message names the nearest.
        ImportError: if a package is missing.
    """
    for name in baselines:
        check_choice(name, BASELINES, "baseline")
    for name in (*agents, *baselines):
        if name not in STRATEGIES:
            factory(name)
