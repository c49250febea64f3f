"""``lfgcl report``: a run as one file that any browser shows without a network connection."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from command_for_tests import prune, said

from lfgcl_env.cli.main import main
from lfgcl_env.edge.sealed import sealed
from lfgcl_env.page import write_page
from lfgcl_env.runs.best import read_best
from lfgcl_env.runs.run_folder import RunFolder

VOID = {"meta"}


class Page(HTMLParser):
    """Reads a page, and fails where its elements are not nested."""

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.words, self.links = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(text)
        self.words.append(text)


def page_of(run):
    return Page(write_page(run).read_text(encoding="utf-8"))


@pytest.fixture
def own_run(run, tmp_path):
    """A copy of the run, which may be changed."""
    unmeasured = shutil.ignore_patterns("accuracy.json", "measured.json")
    return shutil.copytree(run, tmp_path / "run", ignore=unmeasured)


def test_a_finished_run_shows_what_was_pruned_and_what_came_out(own_run, capsys):
    assert main(["report", str(own_run)]) == 0
    assert str(own_run / "report.html") in capsys.readouterr().out
    page = page_of(own_run)
    best = read_best(own_run)
    text = " ".join(page.words)
    assert page.headings == [
        "resnet20 pruned to 0.50 of its MACs", "Search", "Sensitivity",
        "Output channels of every layer", "Recovery", "Time", "Accuracy",
        "Load and export", "How it was made",
    ]  # fmt: skip
    assert f"40,551,040 → {best.macs:,}" in text
    for layer in best.layers:
        if layer.outputs:
            assert layer.name in text
            assert layer.outputs[0] == layer.outputs[1] or (
                f"{layer.outputs[0]} → {layer.outputs[1]}" in text
            )
    assert f"lfgcl evaluate {own_run} --data CIFAR10" in text
    assert f"lfgcl recover {own_run}" in text


def test_what_was_measured_and_tested_is_shown(own_run, test_set, capsys):
    few = ["--runtime", "pytorch", "--batch", "2", "--seconds", "1"]
    assert main(["measure", str(own_run), *few]) == 0
    assert main(["evaluate", str(own_run), "--data", "CIFAR10"]) == 0
    (top1,) = re.findall(r"top-1 +([\d.]+) %", capsys.readouterr().out)
    text = " ".join(page_of(own_run).words)
    assert "images/s" in text
    assert f"{top1} %" in text
    assert "Not measured yet" not in text
    assert "Not tested yet" not in text


def test_a_network_that_is_slower_is_called_slower(own_run, capsys):
    few = ["--runtime", "pytorch", "--batch", "2", "--seconds", "1"]
    assert main(["measure", str(own_run), *few]) == 0
    path = own_run / "measured.json"
    measured = json.loads(path.read_text())
    del measured["checksum"]
    for one in measured["measurements"]:
        one["speedup"] = 1.0 if one["network"] == "baseline" else 0.5
    path.write_text(sealed(measured))
    words = page_of(own_run).words
    place = words.index("slower")
    assert words[place : place + 3] == ["slower", "2.00x", "pytorch, batch 2"]


def test_a_run_that_was_extended_and_interrupted_has_not_ended(own_run):
    run = RunFolder(own_run)
    run.go_on(run.asked() | {"evaluations": 9})
    page = page_of(own_run)
    assert "stopped after 3 evaluations" in " ".join(page.words)
    assert "Channels of the best strategy so far" in page.headings
    assert "Load and export" not in page.headings


def test_a_page_needs_nothing_else(own_run):
    page = page_of(own_run)
    assert page.links == []
    text = (own_run / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert not re.search(r"url\(|@import|https?:", text)


def test_an_interrupted_run_shows_how_far_it_came_and_how_to_go_on(own_run):
    for name in ("best.json", "pruned.safetensors", "report.txt", "report.png", "agent.zip"):
        (own_run / name).unlink(missing_ok=True)
    evaluations = own_run / "evaluations.jsonl"
    evaluations.write_text("".join(evaluations.read_text().splitlines(keepends=True)[:2]))
    page = page_of(own_run)
    text = " ".join(page.words)
    assert "stopped after 2 evaluations" in text
    assert f"lfgcl prune --resume --out {own_run}" in text
    assert "Channels of the best strategy so far" in page.headings
    assert "Load and export" not in page.headings

    evaluations.unlink()
    assert "stopped after 0 evaluations" in " ".join(page_of(own_run).words)


def test_a_sweep_shows_all_its_networks(tmp_path):
    assert prune(tmp_path / "sweep", "--budget", "0.3:0.5", "--points", "2") == 0
    page = page_of(tmp_path / "sweep")
    assert page.headings[0] == "resnet20 pruned to 0.30 to 0.50 of its MACs"
    assert "Networks of the sweep" in page.headings
    assert "scored: the network as it was scored in the search." in " ".join(page.words)
    assert "Channels that every budget keeps" in page.headings


def test_names_are_text_not_markup(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "<script>alert(1)</script> &amp; '\"")
    text = write_page(folder).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "alert(1)" in " ".join(Page(text).words)


def test_groups_of_another_run_are_refused(own_run, capsys):
    path = own_run / "problem.json"
    problem = json.loads(path.read_text())
    del problem["groups"][0], problem["checksum"]
    path.write_text(sealed(problem))
    assert main(["report", str(own_run)]) == 2
    assert "is of another run" in said(capsys)


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "there is no run" in said(capsys)


def test_the_page_goes_where_it_is_wanted(own_run, tmp_path, capsys):
    assert main(["report", str(own_run), "--out", str(tmp_path / "page.html")]) == 0
    assert not (own_run / "report.html").exists()
    Page((tmp_path / "page.html").read_text(encoding="utf-8"))


def test_an_accuracy_belongs_to_its_network_alone(own_run, test_set, capsys):
    assert main(["evaluate", str(own_run), "--data", "CIFAR10"]) == 0
    asked = RunFolder(own_run).asked()
    other = own_run.with_name("other")
    seed = str(asked["agent_seed"] + 1)
    assert prune(other, "--agent-seed", seed, evaluations=2) == 0
    shutil.copy(own_run / "accuracy.json", other)
    assert "Not tested yet" in " ".join(page_of(other).words)
