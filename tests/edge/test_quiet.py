"""What is kept back is told again afterwards, whatever other threads keep back."""

import logging
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from lfgcl_env.edge.quiet import quiet, without_warnings


def settings():
    return list(warnings.filters), sys.stdout, sys.stderr, logging.root.manager.disable


def say(word):
    print(word)
    print(word, file=sys.stderr)
    logging.getLogger("other").error(word)
    warnings.warn(word, stacklevel=1)


def test_nothing_is_said_inside_and_all_of_it_behind(capsys, caplog):
    with quiet():
        say("inside")
    with without_warnings():
        warnings.warn("inside", stacklevel=1)
    with pytest.warns(UserWarning, match="behind") as told:
        say("behind")
    assert len(told) == 1
    assert capsys.readouterr() == ("behind\n", "behind\n")
    assert caplog.messages == ["behind"]


def test_warnings_of_one_kind_are_kept_back():
    with warnings.catch_warnings(record=True) as told, without_warnings(FutureWarning):
        for kind in (FutureWarning, UserWarning):
            warnings.warn("inside", kind, stacklevel=1)
    assert [warning.category for warning in told] == [UserWarning]


@pytest.mark.parametrize("block", [quiet, without_warnings])
def test_errors_are_raised_and_settings_put_back(block):
    before = settings()
    with pytest.raises(ValueError, match="inside"), block():
        raise ValueError("inside")
    assert settings() == before


@pytest.mark.usefixtures("frequent_switches")
@pytest.mark.parametrize("block", [quiet, without_warnings])
def test_threads_put_back_what_was_there_before_all_of_them(block):
    before = settings()

    def often(_):
        for _ in range(50):
            with block(), block():
                sum(range(500))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(often, range(8)))
    assert settings() == before
