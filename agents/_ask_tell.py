"""Black-box search as an agent: a method proposes strategies and receives their rewards.

The method sees neither the network nor the observation. It works on *logits* of keep ratios, where
the environment's projection onto the budget is one shift of all of them: only how groups differ
from each other matters, and a step has the same effect whether a group keeps much or little.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import gymnasium as gym
import numpy as np
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from lfgcl_env.edge.files import write_text
from lfgcl_env.edge.schema import Schema, parse, read_text
from lfgcl_env.envs.choice import Choice
from lfgcl_env.envs.embedding import observed_budget
from lfgcl_env.envs.together import begin_ahead, room_ahead
from lfgcl_env.search.return_so_far import ReturnSoFar

from ._screening import PROPOSALS, Screening

Action = NDArray[np.float32]
Logits = NDArray[np.float64]

LIMIT = 5.0
"""Logits beyond it are clipped: 0.7 % of a group's channels, fewer than one in most networks."""

_NEAR = 0.05  # budgets no further apart than this share a search


class AskTell(ABC):
    """A search method. It clips its logits to ``LIMIT``.

    Args:
        start: logits of the strategy to try first; (groups,).
        draws: the source of all randomness.

    Attributes:
        screen: returns cheap scores of logits (proposals, groups), or None while there are none to
            go by.
    """

    def __init__(self, start: Logits, draws: np.random.Generator) -> None:
        self.start = start
        self.draws = draws
        self.screen: Callable[[Logits], NDArray[np.float64] | None] | None = None

    @abstractmethod
    def ask(self) -> Logits | None:
        """Return the logits to try next, (groups,), or None if there is nothing left to try.

        If there are cheap scores they may be several, (proposals, groups), of which the most
        promising by these is tried; the first, where they do not rank rewards.
        """

    def can_ask(self) -> bool:
        """Whether :meth:`ask` may be called again before the last ones are told."""
        return False

    def ask_many(self, most: int, waiting: int) -> list[Logits]:
        """Return up to ``most`` logits to try; they are told in this order.

        Args:
            most: how many.
            waiting: how many were asked before and not told yet.
        """
        asked: list[Logits] = []
        while len(asked) < most and (waiting + len(asked) == 0 or self.can_ask()):
            if (logits := self.ask()) is None:
                break
            asked.append(logits)
        return asked

    @abstractmethod
    def tell(self, logits: Logits, reward: float, known: bool) -> None:
        """Learn from the reward of the first of the asked logits that were not told yet.

        Args:
            logits: as :meth:`ask` returned them, of several the one that was tried; (groups,).
            reward: of the strategy that they were projected to, the higher the better.
            known: whether that strategy was visited before, on the same budget.
        """

    def promote(self, draw: Callable[[], Logits]) -> Logits:
        """Return several draws, of which the most promising is tried; without cheap scores, one."""
        return draw() if self.screen is None else np.stack([draw() for _ in range(PROPOSALS)])


class Found(Schema):
    """The best strategy that was visited on a budget.

    Attributes:
        budget: fraction of the baseline's cost that could remain.
        reward: of the strategy.
        prune_ratios: as they were executed, one per group.
    """

    budget: Annotated[float, Gt(0), Le(1)]
    reward: float
    prune_ratios: tuple[Annotated[float, Ge(0), Le(1)], ...]


class SavedSearch(Schema):
    """The file of a search agent: its seed, and the best strategy of every budget."""

    seed: int
    best: tuple[Found, ...]


class _Asked(NamedTuple):
    logits: Logits  # (proposals, groups)
    choice: Choice  # of their prune ratios


class AskTellAgent:
    """Run a search method on an environment, and keep the best strategy.

    A strategy's reward is the return of the episode up to its step, so that all steps of a longer
    episode are strategies like any other. Rewards on different budgets cannot be compared. Where an
    environment draws budgets from a range, every budget has a search of its own, and an episode
    whose budget is within 0.05 of one that was searched before is reset to that one.

    Where the environment has several workers, as many strategies are being scored at any time, if
    the method can propose them. They are stepped and told in the order in which they were asked.

    Where the environment's steps are costly and it offers cheap scores, a search draws several
    strategies for every step and executes the most promising, see :mod:`._screening`.

    Args:
        env: an environment whose actions are prune ratios.
        seed: decides all that the agent does.
        kind: makes a search from its start and a generator.
        start: returns logits of the strategy to try first on a budget; (groups,).
        screened: whether the search screens what it draws.

    Raises:
        ValueError: if one action is not a whole strategy.
    """

    def __init__(
        self,
        env: gym.Env[Any, Action],
        seed: int,
        kind: Callable[[Logits, np.random.Generator], AskTell],
        start: Callable[[float], Logits],
        *,
        screened: bool = True,
    ) -> None:
        if getattr(env.unwrapped, "steps_per_strategy", 1) > 1:
            raise ValueError(
                "a search decides all groups at once and cannot act layer by layer: give it the "
                "global environment, LFGCL-... instead of AMC-..."
            )
        self.env = ReturnSoFar(env)
        self.seed = seed
        self._kind, self._start = kind, start
        self._draws = np.random.default_rng(seed)
        self._screening = Screening(env, wanted=screened)
        self._searches: dict[float, AskTell] = {}
        self._asked: dict[float, list[_Asked]] = {}  # and not told yet
        self._found: dict[float, Found] = {}
        self._visited: set[tuple[float, bytes]] = set()

    def begin_at(self, action: Action) -> None:
        """Start every search from a strategy.

        Args:
            action: its prune ratios; (groups,).
        """
        logits = logits_of(action)
        self._start = lambda _budget: logits

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
        asked = self._asked.setdefault(budget, [])
        new = len(asked)  # of an earlier call, whose workers may have ended
        for left in range(total_timesteps, 0, -1):
            room = min(room_ahead(self.env, len(asked)), left - len(asked))
            more = search.ask_many(room, len(asked))
            asked += map(self._choice, more)
            if not asked:
                break
            begin_ahead(
                self.env, [self._screening.ahead(one.choice) for one in asked], new + len(more)
            )
            new = 0
            place, _ = self._screening.decide(asked[0].choice)
            logits, action = asked[0].logits[place], asked[0].choice.actions[place]
            _, reward, terminated, truncated, info = self.env.step(action)
            del asked[0]  # only now: what was asked and not told is tried by the next call
            visit = (budget, info["keep"].tobytes())
            if visit not in self._visited:
                self._screening.learn(action, info, float(reward))
            search.tell(logits, float(reward), visit in self._visited)
            self._visited.add(visit)
            if budget not in self._found or reward > self._found[budget].reward:
                ratios = tuple(info["prune_ratios"].tolist())
                self._found[budget] = Found(
                    budget=budget, reward=float(reward), prune_ratios=ratios
                )
            if callback is not None and not callback(locals(), globals()):
                break
            if len(logits) == 1:  # one group has one strategy on a budget
                break
            if (terminated or truncated) and asked:
                self.env.reset(options={"budget": budget})
            elif terminated or truncated:
                budget, search = self._reset()
                asked = self._asked.setdefault(budget, [])
        return self

    def predict(self, observation: Any, **_: Any) -> tuple[Action, None]:
        """Return the best action for the observed budget, and no state.

        It is the best strategy of the nearest budget that was searched; before the first step, the
        search's start.
        """
        budget = observed_budget(observation)
        if not self._found:
            return prune_ratios(self._start(budget)), None
        nearest = min(self._found, key=lambda known: abs(known - budget))
        return np.array(self._found[nearest].prune_ratios, dtype=np.float32), None

    def save(self, path: str | PathLike[str]) -> None:
        """Write the seed and the best strategy of every budget as JSON.

        Raises:
            OSError: if the file cannot be written.
        """
        saved = SavedSearch(seed=self.seed, best=tuple(self._found.values()))
        write_text(Path(path), saved.model_dump_json(indent=2) + "\n")

    def set_parameters(self, path: str | PathLike[str]) -> None:
        """Predict what was saved; learning afterwards is a new search that may find better.

        Args:
            path: a file that :meth:`save` wrote, of the same network and images.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it is not a search agent's, or of another number of groups.
        """
        best = parse(SavedSearch, read_text(path), f"{path} is not a search agent's file").best
        for one in best:
            if len(one.prune_ratios) != groups_of(self.env):
                raise ValueError(
                    f"{path} has prune ratios of {len(one.prune_ratios)} groups, and this network "
                    f"has {groups_of(self.env)}: a search does not carry over to another network"
                )
        self._found = {one.budget: one for one in best}

    def _reset(self, seed: int | None = None) -> tuple[float, AskTell]:
        """Start an episode; return its budget and the search for it."""
        _, info = self.env.reset(seed=seed)
        drawn = info["budget"]
        budget = min(self._searches, key=lambda known: abs(known - drawn), default=drawn)
        if abs(budget - drawn) > _NEAR:
            budget = drawn
        elif budget != drawn:
            self.env.reset(options={"budget": budget})
        if budget not in self._searches:
            self._searches[budget] = self._begin(budget)
        return budget, self._searches[budget]

    def _choice(self, logits: Logits) -> _Asked:
        proposals = np.atleast_2d(logits)
        return _Asked(proposals, self._screening.choice(prune_ratios(proposals)))

    def _begin(self, budget: float) -> AskTell:
        """Make the search for a budget."""
        search = self._kind(self._start(budget), self._draws)

        def screen(proposals: Logits) -> NDArray[np.float64] | None:
            if not self._screening.trust():  # 0 as well where a wrapper changes actions
                return None
            return self._screening.scores(prune_ratios(proposals))

        if self._screening.offered:
            search.screen = screen
        return search


def from_uniform(
    kind: Callable[[Logits, np.random.Generator], AskTell],
    env: gym.Env[Any, Action],
    seed: int,
    *,
    screened: bool = True,
) -> AskTellAgent:
    """Make an agent whose searches start from uniform ratios.

    Args:
        kind: makes a search from its start and a generator.
        screened: see :class:`AskTellAgent`.
        env: see :class:`AskTellAgent`.
        seed: see :class:`AskTellAgent`.
    """
    start = np.zeros(groups_of(env))
    return AskTellAgent(env, seed, kind, lambda _budget: start, screened=screened)


def groups_of(env: gym.Env[Any, Action]) -> int:
    """Return how many groups the actions of an environment decide."""
    assert isinstance(env.action_space, gym.spaces.Box)
    return env.action_space.shape[0]


def prune_ratios(logits: Logits) -> Action:
    """Turn logits of keep ratios into prune ratios.

    >>> prune_ratios(np.array([0.0, 5.0]))
    array([0.5       , 0.00669285], dtype=float32)
    """
    return (1.0 / (1.0 + np.exp(logits))).astype(np.float32)


def logits_of(action: NDArray[Any]) -> Logits:
    """Turn prune ratios into logits of keep ratios, clipped to ``LIMIT``.

    >>> logits_of(np.array([0.5, 1.0]))
    array([ 0., -5.])
    """
    lowest = 1.0 / (1.0 + np.exp(LIMIT))
    keep = np.clip(1.0 - np.asarray(action, np.float64), lowest, 1.0 - lowest)
    return np.clip(np.log(keep / (1.0 - keep)), -LIMIT, LIMIT)
