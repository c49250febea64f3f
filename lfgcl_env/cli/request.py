"""What ``lfgcl prune`` is asked: the command line's arguments, and a resumed run's record."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lfgcl_env.cli.targets import check_id, config_of, named
from lfgcl_env.config import GlobalConfig, LayerwiseConfig, complete, options, part
from lfgcl_env.edge.named_code import refuse_code
from lfgcl_env.search.search_config import SearchConfig

_MAY_NAME_CODE = {
    "network": "ENV_OR_NETWORK",
    "agent": "--agent",
    "reward": "--reward",
}  # and how they are given on the command line


@dataclass(frozen=True)
class Request:
    """A search and its environment.

    Attributes:
        environment: its id.
        config: arguments of the environment; those that are missing have the id's defaults.
        search: all arguments of the search.
    """

    environment: str
    config: dict[str, Any]
    search: SearchConfig


def request(given: Mapping[str, Any], recorded: Mapping[str, Any]) -> Request:
    """Return what is asked.

    Args:
        given: on the command line; ``target`` is an environment's id or a network.
        recorded: of the run that goes on, see :func:`check_trusted`; empty for a new one.

    Raises:
        ValueError: if there is no target, or an argument is none of the environment's.
    """
    target = named(given["target"]) if "target" in given else {}
    asked = {**recorded, **given, **target}
    if "environment" not in asked:
        raise ValueError(
            "what is to be pruned? Give an environment such as LFGCL-ResNet56-v0, or a network, "
            "before options that take several values"
        )
    environment = check_id(asked["environment"])
    kind = config_of(environment)
    for name in given:
        if name != "target" and name not in options(kind) | options(SearchConfig):
            other = next(k for k in (GlobalConfig, LayerwiseConfig) if name in options(k))
            ids = "LFGCL-" if other is GlobalConfig else "AMC-"
            raise ValueError(
                f"--{name.replace('_', '-')} is for {ids} environments, not for {environment}"
            )
    asked.setdefault("agent_seed", asked.get("seed", 0))
    search = complete(SearchConfig, part(SearchConfig, asked), "the search")
    return Request(environment, dict(part(kind, asked)), search)


def check_trusted(
    recorded: Mapping[str, Any], given: Mapping[str, Any], where: object, *, trust: bool
) -> None:
    """Refuse a record that names code which the user did not name.

    Args:
        recorded: arguments of a run.
        given: arguments of the command line.
        where: the run's folder.
        trust: whether the user trusts it.

    Raises:
        ValueError: if it does; the message tells how to name it.
    """
    repeated = {**given, **(named(given["target"]) if "target" in given else {})}
    for name, option in _MAY_NAME_CODE.items():
        if name not in repeated:
            how = f"if it is yours, give {option} {recorded.get(name)} again, or --trust"
            refuse_code(recorded.get(name), f"the run in {where}", how, trust=trust)
