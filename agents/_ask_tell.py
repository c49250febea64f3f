"""Black-box search as an agent: strategies are asked for one by one, and told their similarity.

A search sees neither the network nor the observation. It works on *logits* of keep ratios, where
the environment's projection onto the budget is one shift of all of them: only how groups differ
from each other matters, and steps mean the same whether a group keeps much or little.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from lfgcl_env.envs.embedding import observed_budget

Action = NDArray[np.float32]
Logits = NDArray[np.float64]

LIMIT = 5.0
"""Logits beyond it are clipped: 0.7 % of a group's channels, fewer than one in most networks."""

_NEAR = 0.05  # budgets no further apart than this share a search


class AskTell(ABC):
    """What asks for strategies: an agent's whole method. Logits are clipped to ``LIMIT`` by it.

    Args:
        start: logits of the strategy to try first; (groups,).
        draws: decides every draw.
    """

    def __init__(self, start: Logits, draws: np.random.Generator) -> None:
        self.start = start
        self.draws = draws

    @abstractmethod
    def ask(self) -> Logits | None:
        """Return the logits to try next, (groups,), or None if there is nothing left to try."""

    @abstractmethod
    def tell(self, logits: Logits, similarity: float, known: bool) -> None:
        """Take in what came of the logits that were asked for last.

        Args:
            logits: as they were asked for.
            similarity: of the strategy that they were projected to.
            known: whether that strategy was visited before, on the same budget.
        """


@dataclass(frozen=True)
class Found:
    """The best strategy that was visited on a budget.

    Attributes:
        budget: fraction of the baseline's cost that could remain.
        similarity: of the strategy.
        prune_ratios: as they were executed, one per group.
    """

    budget: float
    similarity: float
    prune_ratios: tuple[float, ...]


class AskTellAgent:
    """Steps an environment through what a search asks for, and remembers the best.

    Similarities on different budgets cannot be compared. Where an environment draws budgets from a
    range, every budget has a search of its own, and an episode whose budget is within 0.05 of one
    that was searched before is begun again with that one. All actions of an episode with several
    steps are strategies like any other.

    Args:
        env: an environment whose actions are prune ratios.
        seed: decides all that the agent does.
        begin: makes the search for a budget.

    Raises:
        ValueError: if one action is not a whole strategy.
    """

    def __init__(
        self,
        env: gym.Env[Any, Action],
        seed: int,
        begin: Callable[[float, np.random.Generator], AskTell],
    ) -> None:
        if getattr(env.unwrapped, "steps_per_strategy", 1) > 1:
            raise ValueError(
                "a search decides all groups at once and cannot act layer by layer: give it the "
                "global environment, LFGCL-... instead of AMC-..."
            )
        self.env = env
        self.seed = seed
        self._begin = begin
        self._draws = np.random.default_rng(seed)
        self._searches: dict[float, AskTell] = {}
        self._found: dict[float, Found] = {}
        self._visited: set[tuple[float, bytes]] = set()

    def learn(
        self,
        total_timesteps: int,
        callback: Callable[[dict[str, Any], dict[str, Any]], bool] | None = None,
    ) -> "AskTellAgent":
        """Step the environment until ``callback`` returns False or nothing is left to try.

        Args:
            total_timesteps: most steps.
            callback: called after every step with the local and the global variables.
        """
        budget, search = self._reset(seed=self.seed)
        for _ in range(total_timesteps):
            logits = search.ask()
            if logits is None:
                break
            _, reward, terminated, truncated, info = self.env.step(prune_ratios(logits))
            visit = (budget, info["keep"].tobytes())
            search.tell(logits, info["similarity"], visit in self._visited)
            self._visited.add(visit)
            if budget not in self._found or info["similarity"] > self._found[budget].similarity:
                ratios = tuple(info["prune_ratios"].tolist())
                self._found[budget] = Found(budget, info["similarity"], ratios)
            if callback is not None and not callback(locals(), globals()):
                break
            if len(logits) == 1:  # one group has one strategy on a budget
                break
            if terminated or truncated:
                budget, search = self._reset()
        return self

    def predict(self, observation: Any, **_: Any) -> tuple[Action, None]:
        """Return the best action for the observed budget, and no state.

        It is the best strategy of the nearest budget that was searched; before the first step,
        where the search would begin.
        """
        budget = observed_budget(observation)
        if not self._found:
            return prune_ratios(self._begin(budget, self._draws).start), None
        nearest = min(self._found, key=lambda known: abs(known - budget))
        return np.array(self._found[nearest].prune_ratios, dtype=np.float32), None

    def save(self, path: str | PathLike[str]) -> None:
        """Write the seed and the best strategy of every budget as JSON.

        Raises:
            OSError: if the file cannot be written.
        """
        best = [asdict(found) for found in self._found.values()]
        text = json.dumps({"seed": self.seed, "best": best}, indent=2) + "\n"
        Path(path).write_text(text, encoding="utf-8")

    def set_parameters(self, path: str | PathLike[str]) -> None:
        """Predict what was saved; learning afterwards is a new search that may find better.

        Args:
            path: a file that :meth:`save` wrote, of the same network and images.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it is none, or of a network with another number of groups.
        """
        try:
            best = json.loads(Path(path).read_text(encoding="utf-8"))["best"]
            found = [Found(b["budget"], b["similarity"], tuple(b["prune_ratios"])) for b in best]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no file that a search agent saved ({error})") from error
        for one in found:
            if len(one.prune_ratios) != groups_of(self.env):
                raise ValueError(
                    f"{path} has prune ratios of {len(one.prune_ratios)} groups, and this network "
                    f"has {groups_of(self.env)}: a search is worth nothing on another network"
                )
        self._found = {one.budget: one for one in found}

    def _reset(self, seed: int | None = None) -> tuple[float, AskTell]:
        """Begin an episode; return its budget and the search for it."""
        _, info = self.env.reset(seed=seed)
        drawn = info["budget"]
        budget = min(self._searches, key=lambda known: abs(known - drawn), default=drawn)
        if abs(budget - drawn) > _NEAR:
            budget = drawn
        elif budget != drawn:
            self.env.reset(options={"budget": budget})
        if budget not in self._searches:
            self._searches[budget] = self._begin(budget, self._draws)
        return budget, self._searches[budget]


def from_uniform(
    kind: Callable[[Logits, np.random.Generator], AskTell], env: gym.Env[Any, Action], seed: int
) -> AskTellAgent:
    """Make an agent whose searches begin with uniform ratios, as an ``AgentFactory`` does.

    Args:
        kind: makes a search from where it begins and a generator.
        env: see :class:`AskTellAgent`.
        seed: likewise.
    """
    start = np.zeros(groups_of(env))
    return AskTellAgent(env, seed, lambda _budget, draws: kind(start, draws))


def groups_of(env: gym.Env[Any, Action]) -> int:
    """How many groups the actions of an environment have an entry for."""
    assert isinstance(env.action_space, gym.spaces.Box)
    return env.action_space.shape[0]


def prune_ratios(logits: Logits) -> Action:
    """Prune ratios of logits of keep ratios.

    >>> prune_ratios(np.array([0.0, 5.0]))
    array([0.5       , 0.00669285], dtype=float32)
    """
    return (1.0 / (1.0 + np.exp(logits))).astype(np.float32)
