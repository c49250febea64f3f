"""The workers of an environment and its twins."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakSet

from numpy.typing import ArrayLike

from lfgcl_env.edge.executors import Submits
from lfgcl_env.engine import WorkerExecutor, open_engine
from lfgcl_env.envs.choice import Choice, Item, Keep, Screened
from lfgcl_env.envs.reward import Flight, OnScored, StrategyReward
from lfgcl_env.pruning import Evaluation, PruningProblem


class Workers:
    """An executor that environments share, and the strategies that its workers are at.

    Args:
        engine: as environments take it: a name, a user's own executor, or None.
        count: how many workers there are.
        address: of a Ray cluster, or None.
        resources: of each worker on it, or None.

    Attributes:
        executor: None for this process.
        on_scored: called with the evaluation and the score of every strategy that workers score,
            in a thread of the executor; None to call nothing.

    Raises:
        ValueError: for wrong arguments, see :func:`~lfgcl_env.engine.engines.open_engine`.
        ImportError: for a missing extra.
    """

    def __init__(
        self,
        engine: str | Submits | None,
        count: int,
        address: str | None,
        resources: Mapping[str, float] | None,
    ) -> None:
        self.count = count
        self._engine, self._ray = engine, (address, resources)
        self.executor = open_engine(engine, count, ray_address=address, ray_resources=resources)
        self._users: WeakSet[Any] = WeakSet()
        self._flight: Flight | None = None
        self._choices: dict[Choice, Screened] = {}  # begun and not taken
        self.on_scored: OnScored | None = None

    @property
    def busy_seconds(self) -> float | None:
        """Seconds that they spent on tasks, summed; None without this package's workers."""
        own = isinstance(self.executor, WorkerExecutor)
        return self.executor.occupation.seconds if own else None  # type: ignore[union-attr]

    def connect(self) -> None:
        """Reach what the workers start from, if that is elsewhere.

        Raises:
            ConnectionError: if it is not there.
        """
        if isinstance(self.executor, WorkerExecutor):
            self.executor.connect()

    def join(self, env: object) -> None:
        """Count an environment among those that use them."""
        self._users.add(env)

    def begin(self, strategies: Iterable[ArrayLike], reward: StrategyReward) -> None:
        """Begin to score strategies that the reward does not know and no worker is at.

        Args:
            strategies: channels kept in every group, each.
            reward: of all environments that use these workers.
        """
        if self.executor is None:
            return
        if new := reward.unknown(strategies):
            self._begin(new, self.executor, reward)

    def begin_choice(
        self, choice: Choice, keeps: Sequence[Keep], problem: PruningProblem, reward: StrategyReward
    ) -> None:
        """Begin to screen the strategies of a choice that was not begun, and to score the best.

        Args:
            choice: what is chosen.
            keeps: strategies that its actions lead to.
            problem: of all environments that use these workers.
            reward: likewise.
        """
        if self.executor is None or choice in self._choices:
            return
        scored = frozenset(keeps).difference(reward.unknown(keeps))
        known = problem.screened_before(keeps)
        self._choices[choice] = item = Screened(tuple(keeps), choice.best, known, scored)
        self._begin([item], self.executor, reward)

    def take(self, choice: Choice) -> Screened | None:
        """Wait for the worker that is at a choice, and return what it found; None if none did."""
        item = self._choices.pop(choice, None)
        if item is not None:
            self.wait(item)
        return None if item is None or item.scores is None else item

    def wait(self, item: Item) -> None:
        """Wait for the worker that is at an item, if one is."""
        if self._flight is not None:
            self._flight.wait(item)

    def give_up(self, *, at_once: bool = False) -> None:
        """Cancel what was begun and not waited for; see :meth:`InFlight.give_up`."""
        if self._flight is not None:
            self._flight.give_up(at_once=at_once)
            self._flight = None
        self._choices.clear()

    def end_for(self, env: object) -> "Workers":
        """End the workers if this was the last to use them; return others, which begin when needed.

        A user's own executor goes on, and stays.
        """
        self._users.discard(env)
        if not self._users:
            own = isinstance(self.executor, WorkerExecutor) and self.executor is not self._engine
            self.give_up(at_once=own)
            if own:
                self.executor.shutdown()  # type: ignore[union-attr]
        return Workers(self._engine, self.count, *self._ray)

    def _begin(self, items: Sequence[Item], executor: Submits, reward: StrategyReward) -> None:
        if self._flight is None:
            self._flight = reward.in_flight(executor, self._scored)
        self._flight.begin(items)

    def _scored(self, evaluation: Evaluation, score: float) -> None:
        call = self.on_scored
        if call is not None:
            call(evaluation, score)

    def __getstate__(self) -> dict[str, Any]:
        """Leave them with this process; a copy has its own, but none of a user's."""
        asked = None if isinstance(self._engine, Submits) else self._engine
        return {"engine": asked, "count": self.count, "ray": self._ray}

    def __setstate__(self, state: dict[str, Any]) -> None:
        address, resources = state["ray"]
        Workers.__init__(self, state["engine"], state["count"], address, resources)
