"""A run folder keeps what it is given, belongs to one process, and may come from a stranger."""

import json
import subprocess
import sys

import numpy as np
import pytest

from lfgcl_env.edge.sealed import sealed
from lfgcl_env.pruning import Evaluation
from lfgcl_env.runs.lines import RunWriteError
from lfgcl_env.runs.provenance import provenance
from lfgcl_env.runs.record import Record
from lfgcl_env.runs.run_folder import RunFolder

ASKED = {
    "environment": "LFGCL-ResNet20-v0",
    "budget": [0.3, 0.5],
    "num_images": 4,
    "agent": "random",
    "evaluations": 10,
    "agent_seed": 1,
}
EVALUATION = Evaluation((3, 4), 1 / 3, 70, 8, 2 / 3, 0.1)


def record(index, **changes):
    return Record(index, 1.25, 0.1 + 0.2, 1 / 3, Evaluation(**(vars(EVALUATION) | changes)))


@pytest.fixture
def run(tmp_path):
    """A run that scored three strategies."""
    folder = RunFolder(tmp_path / "run")
    folder.begin(ASKED)
    with folder.open_records([record(1)]) as add:
        add(record(2))
        add(record(3))
    return folder


def test_what_was_asked_and_scored_comes_back_exactly(run):
    assert run.asked() == ASKED
    assert run.records() == [record(1), record(2), record(3)]
    described = run.described()
    assert described["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "+00:00" in described["started"]
    assert run.started.year > 2000


def test_going_on_is_written_down(run):
    run.go_on(ASKED | {"evaluations": 20})
    run.go_on(ASKED | {"evaluations": 30})
    assert run.asked()["evaluations"] == 30
    assert len(run.described()["resumed"]) == 2


def test_a_last_line_cut_short_is_dropped(run):
    path = run.path / "evaluations.jsonl"
    whole = path.read_bytes()
    for cut in (1, 2, 40):
        path.write_bytes(whole[:-cut])
        assert run.records() == [record(1), record(2)]


def test_every_flipped_bit_of_a_record_is_noticed_and_its_line_named(run):
    path = run.path / "evaluations.jsonl"
    content = path.read_bytes()
    second = len(content) // 3
    draw = np.random.default_rng(0)
    for place in draw.integers(second, 2 * second - 1, 200):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="line 2"):
            run.records()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"similarity": 2.0}, "'similarity' should be less than or equal to 1"),
        ({"similarity": float("inf")}, "'similarity' should be"),
        ({"macs": -1}, "'macs' should be greater than or equal to 0"),
        ({"macs_ratio": 1.5}, "'macs_ratio' should be less than or equal to 1"),
        ({"keep": [-1]}, "'keep.0' should be greater than or equal to 0"),
        ({"keep": [1.5]}, "'keep.0' should be a valid integer"),
        ({"keep": [1] * 20_000}, "'keep' should have at most 10000 items"),
        ({"budget": 0}, "'budget' should be greater than 0"),
        ({"index": True}, "'index' should be a valid integer"),
        ({"index": 10**30}, "'index' should be less than or equal to"),
        ({"reward": None}, "'reward' should be a valid number"),
        ({"code": "os:system"}, "unknown field 'code'"),
    ],
)
def test_an_impossible_record_is_refused_even_with_a_checksum_that_fits(run, change, complaint):
    path = run.path / "evaluations.jsonl"
    lines = path.read_text().splitlines()
    fields = json.loads(lines[1])
    del fields["checksum"]
    text = json.dumps(fields | change | {"checksum": "0" * 16})
    if "Infinity" not in text:
        text = sealed(fields | change)
    path.write_text("\n".join([lines[0], text, lines[2], ""]))
    with pytest.raises(ValueError, match=f"line 2: {complaint}"):
        run.records()


def test_an_edited_record_is_refused(run):
    path = run.path / "evaluations.jsonl"
    path.write_text(path.read_text().replace('"macs": 70', '"macs": 71', 1))
    with pytest.raises(ValueError, match="line 1: its checksum does not fit"):
        run.records()


def test_records_out_of_order_are_refused(run):
    path = run.path / "evaluations.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[2]]))
    with pytest.raises(ValueError, match=r"line 2: evaluation 3 is out of order"):
        run.records()


def test_a_line_without_end_is_not_read_into_memory(run):
    with (run.path / "evaluations.jsonl").open("ab") as file:
        file.truncate(2**34)  # a hole: no space on disk
    with pytest.raises(ValueError, match="line 4 is too long"):
        run.records()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"evaluations": 1e30}, "'arguments.evaluations' should be a valid integer"),
        ({"evaluations": 10**30}, "'arguments.evaluations' should be less than"),
        ({"evaluations": 0}, "'arguments.evaluations' should be greater than"),
        ({"agent_seed": -1}, "'arguments.agent_seed' should be greater than"),
        ({"agent": ""}, "'arguments.agent' should have at least 1 character"),
        ({"environment": 3}, "'arguments.environment' should be a valid string"),
        ({"num_images": "4"}, "num_images must be a whole number"),
        ({"budget": [0.3, 0.4, 0.5]}, "a range of budgets is"),
        ({"budget": 2.0}, "budget must be a number above 0"),
        ({"seed": -3}, "seed must be a whole number"),
    ],
)
def test_an_impossible_question_is_refused(run, change, complaint):
    with pytest.raises(ValueError, match=complaint):
        run.go_on(ASKED | change)
    assert run.asked() == ASKED
    described = run.described() | {"arguments": ASKED | change}
    (run.path / "arguments.json").write_text(sealed(described))
    with pytest.raises(ValueError, match=complaint):
        run.asked()


def test_edited_arguments_are_refused(run):
    path = run.path / "arguments.json"
    path.write_text(path.read_text().replace('"random"', '"os:system"'))
    with pytest.raises(ValueError, match=r"arguments\.json is damaged: its checksum does not fit"):
        run.asked()


def test_another_question_is_named(run):
    run.check_same(ASKED | {"device": "cuda", "evaluations": 20}, ["device"], 3)
    with pytest.raises(ValueError, match=r"agent_seed=1 and cannot go on with 2"):
        run.check_same(ASKED | {"agent_seed": 2}, [], 3)
    with pytest.raises(ValueError, match="has scored 3 strategies already"):
        run.check_same(ASKED | {"evaluations": 2}, [], 3)


def test_one_process_at_a_time_writes_a_run(run):
    code = (
        "import sys; from lfgcl_env.runs.run_folder import RunFolder\n"
        "with RunFolder(sys.argv[1]).lock(): print('written')"
    )
    command = [sys.executable, "-c", code, str(run.path)]
    with run.lock():
        with pytest.raises(ValueError, match="another process is writing the run in"):
            with RunFolder(run.path).lock():
                pass
        second = subprocess.run(command, capture_output=True, text=True)
        assert second.stdout == ""
        assert "another process is writing the run in" in second.stderr
    assert subprocess.run(command, capture_output=True, text=True).stdout == "written\n"
    assert not (run.path / ".lock").exists()


def test_a_lock_that_a_killed_process_left_stops_nobody(run):
    (run.path / ".lock").touch()
    with run.lock():
        pass
    assert not (run.path / ".lock").exists()


def test_a_lock_leaves_no_folder_that_nothing_was_written_to(tmp_path):
    with RunFolder(tmp_path / "a" / "b").lock():
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_half_written_files_are_removed_by_the_next_run(run):
    (run.path / "sweep").mkdir()
    left = [run.path / name for name in (f"best.json.{'0' * 16}.partial",
                                         f"sweep/report_0.30.txt.{'a' * 16}.partial")]  # fmt: skip
    for path in left:
        path.touch()
    with run.lock():
        assert not any(path.exists() for path in left)


@pytest.mark.parametrize(
    "name", ["tensorboard", "sweep", "best.json", "pruned.safetensors", ".lock", "agent.zip"]
)
def test_nothing_is_written_through_a_link_out_of_the_folder(run, tmp_path, name):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("precious")
    target = victim if name in ("tensorboard", "sweep") else victim / "precious"
    (run.path / name).symlink_to(target)
    before = (run.path / "arguments.json").read_bytes()
    for attempt in (run.lock().__enter__, lambda: run.go_on(ASKED), lambda: run.begin(ASKED)):
        with pytest.raises(ValueError, match="is a link out of"):
            attempt()
    assert (run.path / "arguments.json").read_bytes() == before
    assert [path.name for path in victim.iterdir()] == ["precious"]
    assert (victim / "precious").read_text() == "precious"


def test_a_folder_that_is_a_link_itself_is_the_users_choice(run, tmp_path):
    (tmp_path / "link").symlink_to(run.path)
    with RunFolder(tmp_path / "link").lock():
        assert RunFolder(tmp_path / "link").asked() == ASKED


def test_a_disk_that_is_full_later_says_so(run, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    with run.open_records([]) as add:
        monkeypatch.setattr("lfgcl_env.runs.run_folder.os.fsync", full)
        with pytest.raises(RunWriteError, match=r"cannot write .*: No space left on device"):
            add(record(1))


def test_provenance_tells_where_a_result_comes_from():
    found = provenance()
    assert {"command", "started", "versions", "platform", "processor", "threads"} <= found.keys()
    json.dumps(found)
