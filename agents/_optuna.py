"""Search with a sampler of optuna, which fits a model to all strategies and rewards so far."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ._ask_tell import AskTell, Logits
from ._screening import PROPOSALS

try:
    import optuna
except ModuleNotFoundError as error:
    raise ImportError(
        "agents tpe and gaussian_process need the package optuna: "
        "run `pip install lfgcl-env[search]`"
    ) from error

WIDEST = 2.0
"""Logits are searched within 2 of the start: around one half, from 12 to 88 % of channels kept."""


class OptunaSearch(AskTell):
    """Search by a study of optuna, held in memory.

    Args:
        start: see :class:`~lfgcl_env.agents._ask_tell.AskTell`.
        draws: see :class:`~lfgcl_env.agents._ask_tell.AskTell`.
        sampler: name of a class in ``optuna.samplers``.
        together: whether it proposes several trials that differ before one of them is told.
        **options: of the sampler, besides its seed.
    """

    def __init__(
        self,
        start: Logits,
        draws: np.random.Generator,
        sampler: str,
        *,
        together: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(start, draws)
        self._begun = False
        self._together = together
        self._trials: list[optuna.trial.Trial] = []  # asked and not told
        self._space: dict[str, optuna.distributions.BaseDistribution]
        self._space = {
            str(group): optuna.distributions.FloatDistribution(middle - WIDEST, middle + WIDEST)
            for group, middle in enumerate(start.tolist())
        }
        seed = int(draws.integers(2**31))
        with _quiet():
            chosen = getattr(optuna.samplers, sampler)(seed=seed, **options)
            self._study = optuna.create_study(direction="maximize", sampler=chosen)
            self._study.enqueue_trial(dict(zip(self._space, start.tolist(), strict=True)))

    def ask(self) -> Logits:
        """Return the study's next trial, of several the best by cheap scores; first the start."""
        several = self._begun and self.screen is not None
        self._begun = True
        with _quiet():
            trials = [self._study.ask(self._space) for _ in range(PROPOSALS if several else 1)]
            proposals = np.array([[t.params[name] for name in self._space] for t in trials])
            scores = self.screen(proposals) if self.screen is not None and several else None
            chosen = 0 if scores is None else int(scores.argmax())
            for index, trial in enumerate(trials):
                if index != chosen:
                    self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        self._trials.append(trials[chosen])
        result: Logits = proposals[chosen]
        return result

    def can_ask(self) -> bool:
        """Whether the sampler proposes trials that differ."""
        return self._together

    def tell(self, logits: Logits, reward: float, known: bool) -> None:
        """Report the reward to the study."""
        with _quiet():
            self._study.tell(self._trials.pop(0), reward)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep optuna from writing to standard error, and leave its logging as it was."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
