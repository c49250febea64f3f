"""Searches by optuna in several threads leave its messages, and other warnings, as they were."""

import warnings
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event

import numpy as np
import pytest

optuna = pytest.importorskip("optuna")

from lfgcl_env.agents._optuna import OptunaSearch, _quiet  # noqa: E402 - needs optuna


def settings():
    return optuna.logging.get_verbosity(), list(warnings.filters)


@pytest.mark.usefixtures("frequent_switches")
def test_threads_leave_verbosity_and_filters_as_they_were(capfd):
    before = settings()

    def search(seed: int) -> list[float]:
        found = OptunaSearch(
            np.zeros(3), np.random.default_rng(seed), "TPESampler", multivariate=True
        )
        asked = []
        for reward in range(8):
            logits = found.ask()
            found.tell(logits, float(reward), known=False)
            asked.append(logits.tolist())
        return asked

    alone = [search(seed) for seed in range(2)]
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(search, [0, 1] * 4)) == alone * 4
    assert settings() == before
    assert capfd.readouterr() == ("", "")


def test_one_thread_at_a_time_is_quiet():
    before, inside, leave = settings(), Event(), Event()

    def hold() -> None:
        with _quiet():
            inside.set()
            leave.wait(60)

    def follow() -> None:
        with _quiet():
            pass

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(hold)
        inside.wait(60)
        second = threads.submit(follow)
        assert second in wait([second], timeout=0.5).not_done
        leave.set()
        first.result()
        second.result()
    assert settings() == before
