"""Studies: which runs are the same, what is kept, and what happens when a run fails."""

import doctest
import importlib
import json
import logging
import os

import pytest
from study import Study, agent_version, newest
from study.records import append

from lfgcl_env.engine import Processes


def square(run):
    if run["x"] == 13:
        raise RuntimeError("unlucky")
    return {"square": run["x"] ** 2}


def process(run):
    return {"process": os.getpid()}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results" / "squares.jsonl"


def test_every_run_is_one_line_with_its_fields_result_and_provenance(path):
    assert Study(path, [{"x": 2}, {"x": 3}], square).run() == 0
    written = lines(path)
    assert [(line["run"], line["result"]) for line in written] == [
        ({"x": 2}, {"square": 4}),
        ({"x": 3}, {"square": 9}),
    ]
    assert all("torch" in line["provenance"]["versions"] for line in written)


def test_a_measured_run_is_not_measured_again(path):
    Study(path, [{"x": 2}], square).run()
    before = path.read_text()
    study = Study(path, [{"x": 3}, {"x": 2}], square)
    assert study.missing() == [{"x": 3}]
    assert study.run() == 0
    assert path.read_text().startswith(before)
    assert [line["run"]["x"] for line in lines(path)] == [2, 3]
    assert study.missing() == []


def test_a_run_is_the_same_whatever_the_order_of_its_fields_and_twice_in_a_grid_is_once(path):
    Study(path, [{"x": 2, "y": (1, 2)}, {"y": [1, 2], "x": 2}], square).run()
    assert len(lines(path)) == 1


@pytest.mark.parametrize("changed", [{"agent_version": "b"}, {"seed": 1}, {"new_field": None}])
def test_a_run_that_differs_in_any_field_is_measured_again(path, changed):
    run = {"x": 2, "agent_version": "a", "seed": 0}
    Study(path, [run], square).run()
    assert Study(path, [run | changed], square).missing() == [run | changed]


def test_the_newest_record_of_a_run_counts_whichever_version_of_its_agent_made_it(path):
    for version in ("a", "b"):
        study = Study(path, [{"x": 2, "agent_version": version}], lambda run: {"of": run["x"]})
        study.run()
    assert newest(path) == study.records() == [{"x": 2, "agent_version": "b", "of": 2}]


def test_a_failed_run_is_reported_and_the_others_go_on(path, caplog):
    study = Study(path, [{"x": 13}, {"x": 2}], square, name=lambda run: f"x = {run['x']}")
    assert study.run() == 1
    assert [line["run"]["x"] for line in lines(path)] == [2]
    assert "x = 13: failed" in caplog.text
    assert "RuntimeError: unlucky" in caplog.text
    assert "1 of 2 runs failed" in caplog.text
    assert study.missing() == [{"x": 13}]


def fatal(run):
    if run["x"] == 13:
        os._exit(13)
    return square(run)


@pytest.mark.slow
def test_a_run_that_fails_or_ends_its_worker_is_reported_and_the_others_go_on(path, caplog):
    with Processes(2) as engine:
        assert Study(path, [{"x": 13}, {"x": 2}], square).run(engine) == 1
        assert "RuntimeError: unlucky" in caplog.text
        assert Study(path, [{"x": 13}, {"x": 3}], fatal).run(engine) == 1
        assert "ended 2 worker processes" in caplog.text
    assert sorted(line["run"]["x"] for line in lines(path)) == [2, 3]


@pytest.mark.slow
def test_every_isolated_run_has_a_process_of_its_own(path):
    Study(path, [{"x": 1}, {"x": 2}], process).run(isolated=True)
    processes = {record["process"] for record in newest(path)}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_a_study_that_was_stopped_goes_on_where_it_was(path):
    def stopped(run):
        if run["x"] == 3:
            raise KeyboardInterrupt
        return square(run)

    grid = [{"x": 2}, {"x": 3}, {"x": 4}]
    with pytest.raises(KeyboardInterrupt):
        Study(path, grid, stopped).run()
    assert [line["run"]["x"] for line in lines(path)] == [2]
    assert Study(path, grid, square).run() == 0
    assert [line["run"]["x"] for line in lines(path)] == [2, 3, 4]


def test_half_a_line_is_measured_again_and_replaced(path, caplog):
    Study(path, [{"x": 2}, {"x": 3}], square).run()
    whole = path.read_text()
    path.write_text(whole[:-20])
    assert Study(path, [{"x": 2}, {"x": 3}], square).run() == 0
    assert [line["result"]["square"] for line in lines(path)] == [4, 9]
    assert "half a line" in caplog.text


@pytest.mark.parametrize("damaged", ["{", "[]", '{"run": {}}', '{"run": 1, "result": {}}'])
def test_a_damaged_line_is_refused_with_its_number(path, damaged):
    Study(path, [{"x": 2}], square).run()
    with path.open("a") as file:
        file.write(damaged + "\n")
    with pytest.raises(ValueError, match=r"squares\.jsonl, line 2 is damaged"):
        newest(path)


@pytest.mark.parametrize("result", [{"x": 3}, {"y": float("nan")}, {"y": object()}])
def test_a_result_that_cannot_be_read_back_as_such_is_a_failure(path, result):
    assert Study(path, [{"x": 2}], lambda run: result).run() == 1
    assert newest(path) == []


def test_what_was_measured_is_logged(path, caplog):
    caplog.set_level(logging.INFO)
    Study(path, [{"x": 2}], square, summary=lambda record: f"{record['square']} squared").run()
    assert "4 squared" in caplog.text


def test_a_report_is_written_beside_the_records_with_what_made_them(path):
    study = Study(path, [{"x": 2}, {"x": 3}], square)
    study.run()
    written = study.write_report({"mean": 2})
    assert written == path.with_suffix(".json")
    found = json.loads(written.read_text())
    assert found["mean"] == 2
    (made,) = found["provenance"]
    assert made == {"records": 2} | lines(path)[0]["provenance"]
    assert "torch" in made["versions"]


def test_a_report_names_every_machine_that_made_a_record_and_not_the_one_that_reports(path):
    here = {"command": "study", "cores": 2}
    there = {"command": "study", "cores": 64}
    made = [here | {"started": "2026-02"}, there | {"started": "2026-03"}, {}]
    made.append(here | {"started": "2026-01"})
    for x, provenance in enumerate(made):
        append(path, {"x": x, "agent_version": "a"}, {"y": 0}, provenance)
    append(path, {"x": 1, "agent_version": "b"}, {"y": 1}, here | {"started": "2026-04"})
    found = json.loads(Study(path, [], square).write_report({}).read_text())
    assert found["provenance"] == [
        {"records": 3, "started": "2026-01"} | here,
        {"records": 1},
    ]


AGENT = '''"""An agent."""

from .helping import step


def make(env, seed):
    """Make it."""
    return step(env)  # once
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with an agent of two modules, and an unrelated one."""
    folder = tmp_path / "agents_of_mine"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "agent.py").write_text(AGENT)
    (folder / "helping.py").write_text("def step(env):\n    return env\n")
    (folder / "unrelated.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_the_version_of_an_agent_is_that_of_its_code_and_of_what_it_imports(package):
    name = "agents_of_mine.agent:make"
    version = agent_version(name)
    (package / "unrelated.py").write_text("x = 1\n")
    (package / "agent.py").write_text(AGENT.replace("An agent", "My agent").replace("# once", ""))
    assert agent_version(name) == version
    (package / "helping.py").write_text("def step(env):\n    return env.unwrapped\n")
    helped = agent_version(name)
    assert helped != version
    (package / "agent.py").write_text(AGENT.replace("step(env)", "step(env, seed)"))
    assert agent_version(name) not in (version, helped)


def test_agents_of_the_zoo_have_versions_of_their_own(tmp_path, monkeypatch):
    versions = {agent_version(name) for name in ("ddpg", "td3", "random", "lfgcl")}
    assert len(versions) == 4


def test_an_agent_that_is_not_there_has_no_version():
    with pytest.raises(ValueError, match=r"no module 'lfgcl_env\.agents\.nobody'"):
        agent_version("nobody")


@pytest.mark.parametrize("module", ["agent_version", "markdown", "records", "statistics"])
def test_examples_run(module):
    found = doctest.testmod(importlib.import_module(f"study.{module}"))
    assert found.attempted > 0
    assert found.failed == 0
