"""Search with a sampler of optuna, which fits a model to all strategies and rewards so far."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from lfgcl_env.edge.quiet import without_warnings
from lfgcl_env.networks.state_dicts import state_sha256
from lfgcl_env.search.record_evaluations import budgets_of, problem_of

from ._ask_tell import Action, AskTell, AskTellAgent, Logits, from_uniform
from ._screening import PROPOSALS

try:
    import optuna
    from optuna.storages.journal import JournalFileBackend
except ModuleNotFoundError as error:
    raise ImportError(
        "agents tpe and gaussian_process need the package optuna: "
        "run `pip install lfgcl-env[search]`"
    ) from error

WIDEST = 2.0
"""Logits are searched within 2 of the start: around one half, from 12 to 88 % of channels kept."""


class OptunaSearch(AskTell):
    """Search by a study of optuna.

    Args:
        start: see :class:`~lfgcl_env.agents._ask_tell.AskTell`.
        draws: see :class:`~lfgcl_env.agents._ask_tell.AskTell`.
        sampler: name of a class in ``optuna.samplers``.
        together: whether it proposes several trials that differ before one of them is told.
        journal: file of the study, which searches of other processes may share; None to hold it in
            memory.
        study: begins its name in the file, which ends with what the start is: that decides the
            space of the search.
        **options: of the sampler, besides its seed.

    Raises:
        ValueError: if the file is no journal of optuna.
        OSError: if it cannot be read and written.
    """

    def __init__(
        self,
        start: Logits,
        draws: np.random.Generator,
        sampler: str,
        *,
        together: bool = False,
        journal: str | os.PathLike[str] | None = None,
        study: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(start, draws)
        self._begun = False
        self._together = together
        self._trials: list[list[optuna.trial.Trial]] = []  # asked and not told
        self._space: dict[str, optuna.distributions.BaseDistribution]
        self._space = {
            str(group): optuna.distributions.FloatDistribution(middle - WIDEST, middle + WIDEST)
            for group, middle in enumerate(start.tolist())
        }
        seed = int(draws.integers(2**31))
        with _quiet():
            chosen = getattr(optuna.samplers, sampler)(seed=seed, **options)
            self._study = optuna.create_study(
                storage=None if journal is None else _storage(journal),
                study_name=None if study is None else f"{study}-{_digest(start.tolist())}",
                sampler=chosen,
                direction="maximize",
                load_if_exists=True,
            )
            if not self._study.get_trials(deepcopy=False):
                self._study.enqueue_trial(dict(zip(self._space, start.tolist(), strict=True)))

    def ask(self) -> Logits:
        """Return the study's next trial, or several if there are cheap scores; first the start."""
        several = self._begun and self.screen is not None
        self._begun = True
        with _quiet():
            trials = [self._study.ask(self._space) for _ in range(PROPOSALS if several else 1)]
        self._trials.append(trials)
        proposals = np.array([self._logits(trial) for trial in trials])
        return proposals if several else proposals[0]  # type: ignore[no-any-return]

    def can_ask(self) -> bool:
        """Whether the sampler proposes trials that differ."""
        return self._together

    def tell(self, logits: Logits, reward: float, known: bool) -> None:
        """Report the reward to the study; of several trials the others have failed."""
        trials = self._trials.pop(0)
        tried = [self._logits(trial) for trial in trials].index(logits.tolist())
        with _quiet():
            for index, trial in enumerate(trials):
                if index != tried:
                    self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            self._study.tell(trials[tried], reward)

    def _logits(self, trial: optuna.trial.Trial) -> list[float]:
        return [trial.params[name] for name in self._space]


def make_agent(
    env: gym.Env[Any, Action],
    seed: int,
    sampler: str,
    journal: str | os.PathLike[str] | None,
    *,
    screened: bool = True,
    **options: Any,
) -> AskTellAgent:
    """Make an agent whose searches are studies of optuna, from uniform ratios.

    Args:
        env: an environment of this package.
        seed: decides what is drawn; each of those that share a journal needs its own.
        sampler: see :class:`OptunaSearch`.
        journal: a file by which searches of the same problem, also on other machines, know of each
            other's trials; what one finds then depends on when the others find what.
        screened: see :class:`~lfgcl_env.agents._ask_tell.AskTellAgent`.
        **options: of :class:`OptunaSearch`.

    Raises:
        ValueError: if the problem cannot be shared, see :func:`shared_study`.
    """
    search = partial(OptunaSearch, sampler=sampler, **options, **shared_study(env, journal))
    return from_uniform(search, env, seed, screened=screened)


def shared_study(env: gym.Env[Any, Any], journal: str | os.PathLike[str] | None) -> dict[str, Any]:
    """Return the arguments with which searches of one problem, anywhere, share a study.

    The study's name is a digest of what decides rewards: the problem's settings, its weights and
    images, and the name of the reward. Other problems have other studies in the same file. What a
    reward function computes, and wrappers that change rewards, are not known here: change the
    file with them.

    Args:
        env: an environment of this package.
        journal: the file; None for a study of one's own.

    Raises:
        ValueError: if the environment's budgets differ, whose rewards cannot be compared, or its
            reward is a function without a name.
    """
    if journal is None:
        return {}
    low, high = budgets_of(env)
    if low < high:
        raise ValueError(f"a journal holds rewards on one budget, got budgets {low} to {high}")
    problem = problem_of(env)
    own: Any = env.unwrapped
    if "<lambda>" in own.reward_name:
        raise ValueError(f"a journal tells rewards apart by their names, got {own.reward_name!r}")
    images = {str(n): batch for n, batch in enumerate(problem.batches)}
    if own.labelled is not None:
        images |= {"labelled": own.labelled.images, "labels": own.labelled.labels}
    decides = {
        "settings": problem.settings(),
        "weights": state_sha256(problem.baseline.network.state_dict()),
        "images": state_sha256(images),
        "reward": own.reward_name,
    }
    return {"journal": journal, "study": f"lfgcl-{_digest(decides)}"}


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _storage(journal: str | os.PathLike[str]) -> optuna.storages.JournalStorage:
    try:
        return optuna.storages.JournalStorage(JournalFileBackend(os.fspath(journal)))
    except (ValueError, KeyError, TypeError) as error:  # as it reads the lines
        raise ValueError(f"{os.fspath(journal)} is not a journal of optuna") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep optuna from writing to standard error, and leave its logging as it was.

    One thread at a time is inside, as its verbosity is the process's.
    """
    with without_warnings(optuna.exceptions.ExperimentalWarning):
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)
