"""The comparison: any contestants, resumed where it stopped, reported in tables and plots."""

import csv
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lfgcl_env.baselines.quoted import QUOTED
from rows import BEFORE

from lfgcl_env.leaderboard import read_entries

NETWORK = "networks_for_tests:plain"
TINY = ["--network", NETWORK, "--data", "random", "--images", "8"]
RUN = [*TINY, "--labelled", "20", "--budgets", "0.5", "--evaluations", "2"]
PLOTS = ("top1", "macs", "evaluations", "seconds", "similarity", "channels")
OLD = {
    "agent": "lfgcl",
    "budget": 0.5,
    "seed": 0,
    "evaluations": 400,
    "steps": 410,
    "seconds": 200.0,
    "agent_seconds": 100.0,
    "images": 128,
    "best": {"1": 0.91, "10": 0.92, "100": 0.93, "400": 0.94},
    "tested": {
        "100": {"top1": 86.1, "keep": [8, 8, 8, 16, 16, 16, 32, 32, 32]},
        "400": {"top1": 87.2, "keep": [9, 9, 9, 15, 15, 15, 30, 30, 30]},
    },
    "commit": "8df3847",
}
"""A line as it was written before there were environments and baselines."""


@pytest.fixture
def script(monkeypatch):
    """Import a script by its name, as it is imported by its neighbours."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    before = torch.get_num_threads()
    yield importlib.import_module
    torch.set_num_threads(before)


@pytest.fixture
def compare(script):
    return script("compare").main


@pytest.fixture
def report(script):
    return script("report").main


def lines(folder, network="networks_for_tests_plain"):
    path = folder / f"compare_{network}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def keys(rows):
    return [(row["environment"], row["agent"], row["seed"]) for row in rows]


def plain(rows):
    """Records without what differs from run to run: times."""
    return {
        key: {name: row[name] for name in ("best", "tested", "evaluations", "steps")}
        for key, row in zip(keys(rows), rows, strict=True)
    }


def test_every_contestant_runs_where_it_applies_and_the_report_has_it_all(
    compare, report, tmp_path, capsys
):
    out = ["--out", str(tmp_path)]
    environments = ["LFGCL", "LFGCL-accuracy", "AMC", "AMC-similarity", "AMC-accuracy"]
    baselines = ["uniform", "l1", "soft_filter", "eagleeye", "amc", "amc_executed"]
    contestants = ["--agents", "random", "--baselines", *baselines]
    assert compare([*RUN, *out, *contestants, "--seeds", "0", "--environments", *environments]) == 0
    assert "amc_executed on LFGCL" in capsys.readouterr().err
    rows = lines(tmp_path)
    ran = {(row["environment"], row["agent"]) for row in rows}
    assert ran == {
        *(("LFGCL", name) for name in ("random", *baselines[:-1])),
        *(("LFGCL-accuracy", name) for name in ("random", "eagleeye", "amc")),
        *((layerwise, name) for layerwise in environments[2:] for name in baselines[-2:]),
    }
    by_name = {row["agent"]: row for row in rows if row["environment"] == "LFGCL"}
    assert by_name["random"]["kind"] == "agent"
    assert by_name["amc"]["kind"] == by_name["l1"]["kind"] == "baseline"
    assert by_name["uniform"]["evaluations"] == 1
    assert by_name["soft_filter"]["criterion"] == "l2"
    for row in rows:
        assert list(row["tested"]) == ["2"]
        assert list(row["best"]) == ["1", "2"]
        assert 0 < row["macs_ratio"] <= 0.5

    report([*TINY, *out, "--evaluations", "2"])
    stem = "compare_networks_for_tests_plain"
    for name in PLOTS:
        assert (tmp_path / f"{stem}_{name}.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / f"{stem}.md").read_text()
    overall = (tmp_path / "compare.md").read_text().splitlines()
    assert "| 50% | amc | 1 | 2 |" in page
    assert "| 50% | amc (LFGCL) | 1 | 2 |" in page
    assert "| 50% | amc (AMC-accuracy) | 1 | 2 |" in page
    assert "| 50% | soft_filter, l2 order | 1 | 1 |" in page
    crossed = page.split("| MACs | who decides | similarity | accuracy | accuracy, as published |")[
        1
    ]
    decided = [line.split(" | ")[1:] for line in crossed.splitlines()[2:]]
    filled = {who: [bool(cell.strip(" |")) for cell in cells] for who, *cells in decided}
    assert filled == {
        "globally, amc": [True, True, False],
        "globally, eagleeye": [True, True, False],
        "globally, random": [True, True, False],
        "layer by layer, amc": [True, True, True],
        "layer by layer, amc_executed": [True, True, True],
    }
    title = "networks_for_tests:plain, 50%"
    assert f"| method | evaluations | seeds | {title} | seconds ({title}) |" in overall
    for method in ("uniform", "soft_filter, l2 order", "amc (AMC-accuracy)"):
        assert len([line for line in overall if line.startswith(f"| {method} | ")]) == 1
    assert all(line.count("|") == 6 for line in overall)
    with (tmp_path / f"{stem}.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(rows)
    assert {row["source"] for row in table} == {"re-run"}


def test_what_is_there_is_not_run_again(compare, tmp_path):
    run = [*RUN, "--out", str(tmp_path), "--agents", "random", "--baselines", "uniform"]
    assert compare([*run, "--seeds", "0"]) == 0
    first = lines(tmp_path)
    assert compare([*run, "--seeds", "0", "1"]) == 0
    rows = lines(tmp_path)
    assert rows[: len(first)] == first
    assert keys(rows[len(first) :]) == [("LFGCL", "random", 1)]  # uniform takes no seeds
    assert compare([*run, "--seeds", "0", "--evaluations", "1"]) == 0
    fewer = lines(tmp_path)[len(rows) :]  # what one evaluation is worth was not tested
    assert [list(row["tested"]) for row in fewer] == [["1"], ["1"]]
    rows += fewer
    assert compare([*run, "--seeds", "0", "--evaluations", "3"]) == 0
    assert [row["agent"] for row in lines(tmp_path)[len(rows) :]] == ["random", "uniform"]


def test_two_processes_find_what_one_finds(compare, tmp_path):
    run = [*RUN, "--agents", "random", "--baselines", "l1", "--seeds", "0"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert compare([*run, "--out", str(one)]) == 0
    assert compare([*run, "--out", str(two), "--processes", "2"]) == 0
    assert plain(lines(one)) == plain(lines(two))


def test_a_run_that_fails_is_told_and_the_others_go_on(compare, tmp_path, capsys):
    baselines = ["--baselines", "hrank", "l1"]  # no convolution reads the last group's maps
    assert compare([*RUN, "--out", str(tmp_path), "--agents", *baselines, "--seeds", "0"]) == 1
    assert [row["agent"] for row in lines(tmp_path)] == ["l1"]
    error = capsys.readouterr().err
    assert "LFGCL hrank seed 0: failed" in error
    assert "1 of 2 runs failed" in error


def test_an_unknown_contestant_is_refused_before_anything_runs(compare, tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'uniform'"):
        compare([*RUN, "--out", str(tmp_path / "none"), "--baselines", "unifrom"])
    with pytest.raises(ValueError, match="Did you mean 'lfgcl'"):
        compare([*RUN, "--out", str(tmp_path / "none"), "--agents", "lfgc"])
    assert not (tmp_path / "none").exists()


def test_what_an_agent_scores_besides_its_strategies_counts(compare, tmp_path):
    out = ["--out", str(tmp_path), "--seeds", "0", "--baselines"]
    out += ["--budgets", "0.5", "--evaluations", "12", "--agents", "allocation", "random"]
    assert compare([*TINY, "--network", "resnet20", "--weights", "random", *out]) == 0
    rows = {row["agent"]: row for row in lines(tmp_path, "resnet20")}
    assert rows["random"]["evaluations"] == 12
    assert list(rows["random"]["best"]) == ["1", "10", "12"]
    assert rows["allocation"]["evaluations"] == 9 + 12  # every group halved alone
    assert list(rows["allocation"]["best"]) == ["10", "12"]


def test_lines_from_before_there_were_baselines_count_and_are_reported(
    compare, report, tmp_path, capsys
):
    path = tmp_path / "compare_resnet20.jsonl"
    old = [OLD, OLD | {"seed": 1}]
    path.write_text("".join(json.dumps(line) + "\n" for line in old))
    out = ["--out", str(tmp_path)]
    run = [*out, "--agents", "lfgcl", "--baselines", "--budgets", "0.5", "--seeds", "0", "1"]
    run += ["--similarity", "mse"]  # they had no other
    assert compare(run) == 0
    assert len(lines(tmp_path, "resnet20")) == 2
    board = tmp_path / "board.jsonl"
    report([*out, "--similarity", "mse", "--leaderboard", str(board)])
    page = (tmp_path / "compare_resnet20.md").read_text()
    assert "| 50% | lfgcl (mse reward) | 2 | 400 |" in page
    assert "| 0.9400 | 86.10 | 87.20 | 200 | 0.250 |" in page
    (entry,) = read_entries(board)
    assert list(entry.keep.values()) == OLD["tested"]["400"]["keep"]
    assert (entry.method, entry.similarity, entry.top1) == ("lfgcl (mse reward)", 0.94, 87.2)


def test_quoted_rows_stand_beside_and_are_marked(report, tmp_path):
    keep = [8] * 5 + [16] * 5 + [32] * 5
    tested = {count: {"top1": 90.0, "keep": keep} for count in ("100", "400")}
    path = tmp_path / "compare_resnet32.jsonl"
    path.write_text(json.dumps(OLD | {"tested": tested}) + "\n")
    report(["--network", "resnet32", "--similarity", "mse", "--out", str(tmp_path)])
    page = (tmp_path / "compare_resnet32.md").read_text()
    quoted = [row for row in QUOTED if row.network == "resnet32"]
    assert page.count("*quoted* |") == len(quoted) > 0
    with (tmp_path / "compare_resnet32.csv").open() as file:
        sources = [row["source"] for row in csv.DictReader(file)]
    assert sources == ["re-run"] + ["quoted"] * len(quoted)


def test_the_plot_against_macs_shows_all_that_is_quoted_and_measured(script):
    keep = {0.65: [12] * 27, 0.35: [6] * 27}
    rows = [
        BEFORE
        | OLD
        | {
            "budget": budget,
            "similarity": "discounted_mse",
            "tested": {"400": {"top1": top1, "keep": keep[budget]}},
        }
        for budget, top1 in ((0.65, 92.0), (0.35, 78.0))
    ]
    problem = script("report").structure("resnet56", "published")
    figure = script("plots").Plots("resnet56", rows, problem, 400).against_macs()
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    drawn = [y for line in axes.lines for y in line.get_ydata()]
    assert {92.0, 78.0} < set(drawn)
    assert low < min(drawn) <= max(drawn) < high
    notes = [text.get_text() for text in axes.texts]
    assert "GAL-0.6, quoted" in notes
    assert "GAL-0.6, quoted, fine-tuned" in notes


def test_only_several_seeds_are_called_best(script):
    def row(method, seeds, top1, evaluations=400):
        found = {"400": {"iqm": top1}}
        return {
            "budget": 0.5,
            "method": method,
            "seeds": seeds,
            "evaluations": evaluations,
            "criterion": "obs",
            "top1": found,
            "similarity": found,
            "seconds": 1.0,
        }

    table = [row("lucky", 1, 90.0), row("steady", 3, 89.0), row("plain", 1, 88.0, 1)]
    page = script("tables").overview([("net", table, 400)])
    assert "| lucky | 400 | 1 | 90.00 / 90.000 | 1 |" in page
    assert "| steady | 400 | 3 | **89.00** / **89.000** | 1 |" in page
    page = script("tables").overview([("net", [table[0], table[2]], 400)])
    assert "| plain | 1 | 1 | **88.00** / **88.000** | 1 |" in page


def test_accuracies_are_measured_anew_for_every_run(script, monkeypatch):
    ground = script("ground").Ground(NETWORK, 8, 0.5, data="random", labelled=20)
    measured = []

    def counted(network, labelled, device):
        measured.append(network)
        return 50.0

    monkeypatch.setattr("lfgcl_env.envs.accuracy.top1", counted)
    for name in ("AMC", "LFGCL-accuracy"):
        env = ground.environment(name)
        for times in (1, 2, 2):
            env.reset(seed=0)
            for _ in range(getattr(env.unwrapped, "steps_per_strategy", 1)):
                env.step(np.full(env.action_space.shape, 0.5, np.float32))
            assert len(measured) == times
            if len(measured) == 1:
                env.get_wrapper_attr("forget")()
        measured.clear()


def test_a_report_on_nothing_says_so(report, tmp_path):
    with pytest.raises(SystemExit, match="has no runs with"):
        report(["--out", str(tmp_path)])


def test_the_readme_shows_the_tables_as_they_were_measured():
    checkout = Path(__file__).parents[2]
    readme = (checkout / "README.md").read_text()
    assert (checkout / "benchmarks/results/compare.md").read_text() in readme
    page = (checkout / "benchmarks/results/compare_resnet20.md").read_text()
    assert page.split("Who decides and what is rewarded: top-1 after 400\n\n")[1] in readme
