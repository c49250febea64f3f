"""Worker processes: they answer, are replaced when they die, and leave nobody behind."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from torch_in_worker import has_torch

from lfgcl_env.engine import Processes, WorkerDied, open_engine


@pytest.fixture(scope="module")
def pair():
    with Processes(2) as executor:
        yield executor


def pid_of(_: object) -> int:
    time.sleep(0.05)
    return os.getpid()


def die_once(marker: Path) -> str:
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def die(_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(code: int) -> None:
    os._exit(code)


class TwoArguments(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def fail(kind: type[Exception], *arguments: object) -> None:
    raise kind(*arguments)


def test_results_come_in_the_order_of_tasks(pair):
    assert list(pair.map(divmod, range(8), [3] * 8)) == [divmod(i, 3) for i in range(8)]


def test_workers_stay_for_further_tasks_and_are_no_more_than_asked_for(pair):
    first, second = set(pair.map(pid_of, range(8))), set(pair.map(pid_of, range(8)))
    assert first | second == first
    assert len(first) == 2
    assert os.getpid() not in first


def test_a_worker_has_one_thread_of_pytorch(pair):
    assert pair.submit(torch.get_num_threads).result() == 1
    with Processes(1, threads=2) as executor:
        assert executor.submit(torch.get_num_threads).result() == 2


@pytest.mark.skipif("forkserver" not in get_all_start_methods(), reason="workers are spawned")
def test_a_worker_is_forked_from_a_process_that_has_imported_pytorch():
    with Processes(1) as executor:
        assert executor.submit(has_torch, None, 0).result()


def test_the_seconds_that_workers_are_busy_are_counted(pair):
    before = pair.occupation.seconds
    list(pair.map(time.sleep, [0.1] * 4))
    busy = pair.occupation.seconds - before
    assert busy >= 0.4
    time.sleep(0.1)
    assert pair.occupation.seconds - before == busy


def test_an_error_arrives_with_its_message_and_the_worker_goes_on(pair):
    with pytest.raises(ValueError, match="there are 3 of 4") as caught:
        pair.submit(fail, ValueError, "there are 3 of 4").result()
    assert "in a worker" in caught.value.__notes__[0]
    assert "in fail" in caught.value.__notes__[0]
    with pytest.raises(SystemExit):
        pair.submit(fail, SystemExit, 3).result()
    assert pair.submit(abs, -1).result() == 1


def test_an_error_that_cannot_be_pickled_arrives_as_its_sentence(pair):
    with pytest.raises(RuntimeError, match="TwoArguments: 1 and 2"):
        pair.submit(fail, TwoArguments, 1, 2).result()


def test_what_cannot_be_sent_is_an_error_of_its_task(pair):
    with pytest.raises(Exception, match="pickle"):
        pair.submit(abs, lambda: None).result()
    with pytest.raises(Exception, match="pickle"):
        pair.submit(open, os.devnull).result()
    assert pair.submit(abs, -1).result() == 1


def test_a_worker_that_dies_is_replaced_and_its_task_done_again(pair, tmp_path):
    markers = [tmp_path / str(number) for number in range(4)]
    assert list(pair.map(die_once, markers)) == ["done"] * 4


def test_a_task_that_ends_two_workers_is_reported_and_others_are_done(pair):
    deadly = pair.submit(die, "this task")
    others = [pair.submit(abs, -number) for number in range(6)]
    with pytest.raises(WorkerDied, match=r"die\('this task',\) ended 2 .*-9.*memory"):
        deadly.result()
    assert [other.result() for other in others] == list(range(6))
    with pytest.raises(WorkerDied, match="exit code 3"):
        pair.submit(leave, 3).result()


def test_an_idle_worker_that_was_killed_is_replaced(pair):
    for pid in set(pair.map(pid_of, range(8))):
        os.kill(pid, signal.SIGKILL)
    assert list(pair.map(abs, range(8))) == list(range(8))


def test_workers_end_with_the_executor():
    with Processes(2) as executor:
        pids = set(executor.map(pid_of, range(8)))
    assert gone(pids)
    dropped = Processes(1)
    pids = {dropped.submit(pid_of, 0).result()}
    del dropped
    assert gone(pids)


def test_workers_end_after_a_shutdown_that_does_not_wait():
    executor = Processes(1)
    pids = {executor.submit(os.getpid).result()}
    late = executor.submit(pid_of, 0)
    executor.shutdown(wait=False)
    assert late.result() in pids
    assert gone(pids)


def start_a_child(_: object) -> int:
    return subprocess.Popen(["sleep", "60"]).pid


def load(_: object) -> float:
    data = TensorDataset(torch.arange(4.0))
    return float(sum(batch.sum() for (batch,) in DataLoader(data, num_workers=1)))


def test_a_task_may_start_processes_which_end_with_its_worker():
    with Processes(1) as executor:
        assert executor.submit(load, 0).result() == 6.0
        children = {executor.submit(start_a_child, 0).result()}
        assert not gone(children, 0.2)
    assert gone(children)


def test_a_worker_that_ends_while_its_child_lives_is_noticed():
    with Processes(1) as executor:
        executor.submit(start_a_child, 0).result()
        child = executor.submit(fork_a_child, 0).result()
        with pytest.raises(WorkerDied, match="exit code 3"):
            executor.submit(leave, 3).result()
        assert gone({child})


def fork_a_child(_: object) -> int:
    child = get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    return child.pid


UNGUARDED = """
from lfgcl_env.engine import Processes

print(Processes(1).submit(abs, -1).result())
"""


def test_a_script_without_its_guard_is_told_so(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120
    )
    last = done.stderr.strip().splitlines()[-1]
    assert 'it needs `if __name__ == "__main__":`' in last, done.stderr


def test_an_interrupt_ends_workers_in_the_middle_of_a_task():
    executor, started = Processes(1), time.monotonic()
    pids = {executor.submit(os.getpid).result()}
    futures = [executor.submit(time.sleep, 60) for _ in range(3)]
    with pytest.raises(KeyboardInterrupt), executor:
        raise KeyboardInterrupt
    assert gone(pids)
    assert time.monotonic() - started < 30
    assert all(future.done() for future in futures)


def test_tasks_can_be_given_up_and_others_done_after_them():
    with Processes(2) as executor:
        list(executor.map(pid_of, range(4)))
        started = time.monotonic()
        futures = [executor.submit(time.sleep, 60) for _ in range(2)]
        time.sleep(0.2)
        executor.interrupt()
        for future in futures:
            with pytest.raises(CancelledError):
                future.result()
        assert executor.submit(abs, -1).result() == 1
        assert time.monotonic() - started < 30


DRIVER = """
import os, sys, time
from lfgcl_env.engine import Processes

if __name__ == "__main__":
    executor = Processes(2)
    pids = {executor.submit(os.getpid).result()}
    futures = [executor.submit(time.sleep, 60) for _ in range(4)]
    while len(executor._all) < 2:  # one that is starting would take its own time
        time.sleep(0.05)
    try:
        print(*{worker.process.pid for worker in executor._all}, flush=True)
        time.sleep(0 if sys.argv[1:] == ["end"] else 60)
    except KeyboardInterrupt:
        executor.kill()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_the_process_that_started_it(how, tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    driver = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    pids = {int(pid) for pid in driver.stdout.readline().split()}
    assert pids
    if how == signal.SIGINT:
        os.killpg(driver.pid, how)  # as Ctrl-C in a terminal
    else:
        os.kill(driver.pid, how)
    driver.wait(80)
    assert gone(pids)


def gone(pids: set[int], patience: float = 10.0) -> bool:
    """Whether no such process is left, after a while."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.parametrize("arguments", [{"workers": 0}, {"workers": 2.5}, {"threads": -1}])
def test_counts_that_are_none_are_refused(arguments):
    with pytest.raises(ValueError, match="must be a whole number"):
        Processes(**arguments)


def test_engines_have_names():
    assert open_engine(None, 1) is open_engine("serial", 1) is None
    with open_engine(None, 2) as executor:
        assert executor.workers == 2
        assert open_engine(executor, 5) is executor
    with pytest.raises(ValueError, match="Did you mean 'processes'"):
        open_engine("process", 2)
    with pytest.raises(ValueError, match="this process alone"):
        open_engine("serial", 2)
