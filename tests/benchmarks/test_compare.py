"""The comparison: any methods, resumed where it stopped, reported in tables and plots."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from compare import main as compare
from comparison.delivered import delivery, with_top1
from comparison.plots import Plots
from comparison.protocol import ComparisonProtocol
from comparison.tables import overview
from lfgcl_env.baselines.quoted import QUOTED
from report import main as report
from report import structure, summaries
from study import newest

from lfgcl_env.leaderboard import read_entries

NETWORK = "networks_for_tests:plain"
TINY = ["--network", NETWORK, "--data", "random", "--images", "8"]
RUN = [*TINY, "--labelled", "20", "--budgets", "0.5", "--evaluations", "2"]
PLOTS = ("top1", "macs", "evaluations", "seconds", "similarity", "channels")
RUN_FIELDS = {
    "network": "resnet20",
    "environment": "LFGCL",
    "agent": "lfgcl",
    "agent_version": "unknown",
    "budget": 0.5,
    "seed": 0,
    "evaluations": 400,
    "images": 128,
    "weights": "published",
    "data": "CIFAR10",
    "similarity": "discounted_mse",
    "labelled": None,
}
RESULT = {
    "scored": 400,
    "steps": 410,
    "seconds": 200.0,
    "agent_seconds": 100.0,
    "criterion": "obs",
    "best": {"1": 0.91, "10": 0.92, "100": 0.93, "400": 0.94},
    "tested": {
        "100": {"keep": [8, 8, 8, 16, 16, 16, 32, 32, 32]},
        "400": {"keep": [9, 9, 9, 15, 15, 15, 30, 30, 30]},
    },
}
TOP1 = {"100": 86.1, "400": 87.2}


def write(path, *runs, **result):
    """Write records of runs that differ in these fields."""
    parts = [{"run": RUN_FIELDS | run, "result": RESULT | result, "provenance": {}} for run in runs]
    path.write_text("".join(json.dumps(line) + "\n" for line in parts))


def deliver(path, **top1):
    """Write deliveries of the strategies in a file of searches, by evaluations."""
    found = [
        {"run": delivery(r, tested["keep"]), "result": {"top1": top1[count]}, "provenance": {}}
        for r in newest(path)
        for count, tested in r["tested"].items()
    ]
    text = "".join(json.dumps(line) + "\n" for line in found)
    (path.parent / path.name.replace("compare", "delivered")).write_text(text)


def lines(folder, network="networks_for_tests_plain"):
    """Return fields of run and result of every line."""
    path = folder / f"compare_{network}.jsonl"
    parsed = [json.loads(line) for line in path.read_text().splitlines()]
    return [line["run"] | line["result"] for line in parsed]


def keys(rows):
    return [(row["environment"], row["agent"], row["seed"]) for row in rows]


def plain(rows):
    """Records without what differs from run to run: times."""
    return {
        key: {name: row[name] for name in ("best", "tested", "scored", "steps")}
        for key, row in zip(keys(rows), rows, strict=True)
    }


@pytest.mark.slow
def test_every_method_runs_where_it_applies_and_the_report_has_it_all(tmp_path, caplog):
    out = ["--out", str(tmp_path)]
    environments = ["LFGCL", "LFGCL-accuracy", "AMC", "AMC-similarity", "AMC-accuracy"]
    baselines = ["uniform", "l1", "soft_filter", "eagleeye", "amc", "amc_executed"]
    methods = ["--agents", "random", "--baselines", *baselines]
    assert compare([*RUN, *out, *methods, "--seeds", "0", "--environments", *environments]) == 0
    assert "amc_executed on LFGCL" in caplog.text
    rows = lines(tmp_path)
    ran = {(row["environment"], row["agent"]) for row in rows}
    assert ran == {
        *(("LFGCL", name) for name in ("random", *baselines[:-1])),
        *(("LFGCL-accuracy", name) for name in ("random", "eagleeye", "amc")),
        *((layerwise, name) for layerwise in environments[2:] for name in baselines[-2:]),
    }
    by_name = {row["agent"]: row for row in rows if row["environment"] == "LFGCL"}
    assert by_name["uniform"]["scored"] == 1
    assert by_name["soft_filter"]["criterion"] == "l2"
    for row in rows:
        assert list(row["tested"]) == ["2"]
        assert list(row["best"]) == ["1", "2"]
        assert 0 < row["macs_ratio"] <= 0.5

    found = newest(tmp_path / "delivered_networks_for_tests_plain.jsonl")
    assert {tuple(one["keep"]) for one in found} == {tuple(r["tested"]["2"]["keep"]) for r in rows}
    assert all(0 <= one["top1"] <= 100 for one in found)

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
    kinds = {row["method"]: row["kind"] for row in table}
    assert kinds["random"] == "agent"
    assert kinds["amc"] == kinds["l1"] == "baseline"


@pytest.mark.slow
def test_measured_runs_are_not_run_again(tmp_path):
    run = [*RUN, "--out", str(tmp_path), "--agents", "random", "--baselines", "uniform"]
    assert compare([*run, "--seeds", "0"]) == 0
    first = lines(tmp_path)
    assert compare([*run, "--seeds", "0", "1"]) == 0
    rows = lines(tmp_path)
    assert rows[: len(first)] == first
    assert keys(rows[len(first) :]) == [("LFGCL", "random", 1)]  # uniform takes no seeds
    assert compare([*run, "--seeds", "0", "--evaluations", "1"]) == 0
    fewer = lines(tmp_path)[len(rows) :]  # the best of one evaluation was not tested
    assert [list(row["tested"]) for row in fewer] == [["1"], ["1"]]
    rows += fewer
    assert compare([*run, "--seeds", "0", "--evaluations", "3"]) == 0
    assert [row["agent"] for row in lines(tmp_path)[len(rows) :]] == ["random", "uniform"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_two_workers_find_what_one_finds(tmp_path, engine):
    if engine == "ray":
        pytest.importorskip("ray")
    run = [*RUN, "--agents", "random", "--baselines", "l1", "--seeds", "0"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert compare([*run, "--out", str(one)]) == 0
    workers = ["--workers", "2", "--engine", engine]
    workers += ["--ray-resources", "CPU=0.5"] if engine == "ray" else []
    assert compare([*run, "--out", str(two), *workers]) == 0
    assert plain(lines(one)) == plain(lines(two))


def test_a_run_that_fails_is_reported_and_the_others_go_on(tmp_path, caplog):
    baselines = ["--baselines", "hrank", "l1"]  # no convolution reads the last group's maps
    assert compare([*RUN, "--out", str(tmp_path), "--agents", *baselines, "--seeds", "0"]) == 1
    assert [row["agent"] for row in lines(tmp_path)] == ["l1"]
    assert "LFGCL hrank seed 0: failed" in caplog.text
    assert "1 of 2 runs failed" in caplog.text


def test_an_unknown_method_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'uniform'"):
        compare([*RUN, "--out", str(tmp_path / "none"), "--baselines", "unifrom"])
    with pytest.raises(ValueError, match="Did you mean 'lfgcl'"):
        compare([*RUN, "--out", str(tmp_path / "none"), "--agents", "lfgc"])
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_what_an_agent_scores_besides_its_strategies_counts(tmp_path):
    out = ["--out", str(tmp_path), "--seeds", "0", "--baselines"]
    out += ["--budgets", "0.5", "--evaluations", "12", "--agents", "allocation", "random"]
    assert compare([*TINY, "--network", "searches_for_tests:own_network", *out]) == 0
    rows = {row["agent"]: row for row in lines(tmp_path, "searches_for_tests_own_network")}
    assert rows["random"]["scored"] == 12
    assert list(rows["random"]["best"]) == ["1", "10", "12"]
    assert rows["allocation"]["scored"] == 5 + 12  # every group halved alone
    assert list(rows["allocation"]["best"]) == ["10", "12"]


def test_runs_of_several_seeds_are_one_line_and_the_best_is_an_entry(tmp_path):
    path = tmp_path / "compare_resnet20.jsonl"
    write(path, {"similarity": "mse"}, {"similarity": "mse", "seed": 1})
    deliver(path, **TOP1)
    board = tmp_path / "board.jsonl"
    report(["--out", str(tmp_path), "--similarity", "mse", "--leaderboard", str(board)])
    page = (tmp_path / "compare_resnet20.md").read_text()
    assert "| 50% | lfgcl (mse reward) | 2 | 400 |" in page
    assert "| 0.9400 | 86.10 | 87.20 | 200 | 0.250 |" in page
    (entry,) = read_entries(board)
    assert list(entry.keep.values()) == RESULT["tested"]["400"]["keep"]
    assert (entry.method, entry.similarity, entry.top1) == ("lfgcl (mse reward)", 0.94, 87.2)


def test_the_report_shows_the_newest_record_of_a_run(tmp_path):
    path = tmp_path / "compare_resnet20.jsonl"
    write(path, {})
    line = json.loads(path.read_text())
    line["run"]["agent_version"] = "newer"
    line["result"]["tested"]["400"]["keep"][0] = 8
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    deliver(path, **TOP1 | {"400": 88.5})
    report(["--out", str(tmp_path)])
    page = (tmp_path / "compare_resnet20.md").read_text()
    assert "| 50% | lfgcl | 1 | 400 |" in page
    assert "| 86.10 | 88.50 |" in page


def test_quoted_results_are_shown_beside_and_are_marked(tmp_path):
    keep = [8] * 5 + [16] * 5 + [32] * 5
    path = tmp_path / "compare_resnet32.jsonl"
    tested = {count: {"keep": keep} for count in ("100", "400")}
    write(path, {"network": "resnet32"}, tested=tested)
    deliver(path, **TOP1)
    report(["--network", "resnet32", "--out", str(tmp_path)])
    page = (tmp_path / "compare_resnet32.md").read_text()
    quoted = [row for row in QUOTED if row.network == "resnet32"]
    assert page.count("*quoted* |") == len(quoted) > 0
    with (tmp_path / "compare_resnet32.csv").open() as file:
        sources = [row["source"] for row in csv.DictReader(file)]
    assert sources == ["re-run"] + ["quoted"] * len(quoted)


def test_the_plot_against_macs_shows_all_quoted_and_measured_results():
    keep = {0.65: [12] * 27, 0.35: [6] * 27}
    rows = [
        RUN_FIELDS
        | RESULT
        | {
            "budget": budget,
            "tested": {"400": {"top1": top1, "keep": keep[budget]}},
        }
        for budget, top1 in ((0.65, 92.0), (0.35, 78.0))
    ]
    problem = structure("resnet56", "published")
    figure = Plots("resnet56", rows, problem, 400).against_macs()
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    drawn = [y for line in axes.lines for y in line.get_ydata()]
    assert {92.0, 78.0} < set(drawn)
    assert low < min(drawn) <= max(drawn) < high
    notes = [text.get_text() for text in axes.texts]
    assert "GAL-0.6, quoted" in notes
    assert "GAL-0.6, quoted, fine-tuned" in notes


def test_only_a_mean_over_several_seeds_is_shown_as_best():
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
    page = overview([("net", table, 400)])
    assert "| lucky | 400 | 1 | 90.00 / 90.000 | 1 |" in page
    assert "| steady | 400 | 3 | **89.00** / **89.000** | 1 |" in page
    page = overview([("net", [table[0], table[2]], 400)])
    assert "| plain | 1 | 1 | **88.00** / **88.000** | 1 |" in page


def test_accuracies_are_measured_anew_for_every_run(monkeypatch):
    protocol = ComparisonProtocol(NETWORK, 8, 0.5, data="random", labelled=20)
    measured = []

    def counted(network, labelled, device):
        measured.append(network)
        return 50.0

    monkeypatch.setattr("lfgcl_env.envs.reward.top1", counted)
    for name in ("AMC", "LFGCL-accuracy"):
        env = protocol.environment(name)
        for times in (1, 2, 2):
            env.reset(seed=0)
            for _ in range(getattr(env.unwrapped, "steps_per_strategy", 1)):
                env.step(np.full(env.action_space.shape, 0.5, np.float32))
            assert len(measured) == times
            if len(measured) == 1:
                env.get_wrapper_attr("forget")()
        measured.clear()


def test_strategies_are_delivered_once_and_anew_when_the_delivery_changes(tmp_path, monkeypatch):
    run = [*RUN, "--out", str(tmp_path), "--agents", "random", "--baselines", "--seeds", "0"]
    assert compare(run) == 0
    path = tmp_path / "delivered_networks_for_tests_plain.jsonl"
    before = path.read_text()
    assert compare(run) == 0
    assert path.read_text() == before
    monkeypatch.setattr(
        "comparison.delivered.DELIVERY", {"images": 8, "rows": 64, "gauss_newton": 0}
    )
    with pytest.raises(SystemExit, match="no delivered runs"):
        report([*TINY, "--out", str(tmp_path), "--evaluations", "2"])
    assert compare(run) == 0
    first, second = newest(path)
    assert (first["keep"], second["delivery"]["images"]) == (second["keep"], 8)
    report([*TINY, "--out", str(tmp_path), "--evaluations", "2"])


def test_a_report_without_runs_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="has no delivered runs with"):
        report(["--out", str(tmp_path)])


def test_the_documentation_shows_the_tables_as_they_were_measured():
    checkout = Path(__file__).parents[2]
    pages = [checkout / "README.md", *(checkout / "docs").glob("*.md")]
    documentation = "".join(page.read_text() for page in pages)
    assert (checkout / "benchmarks/results/compare.md").read_text() in documentation
    page = (checkout / "benchmarks/results/compare_resnet20.md").read_text()
    assert page.split("Who decides and what is rewarded: top-1 after 400\n\n")[1] in documentation


@pytest.mark.slow
@pytest.mark.parametrize("network", ["resnet20", "resnet56"])
def test_the_shipped_tables_are_made_from_the_shipped_runs(network):
    results = Path(__file__).parents[2] / "benchmarks" / "results"
    path = results / f"delivered_{network}.jsonl"
    records = with_top1(newest(results / f"compare_{network}.jsonl"), path)
    shipped = json.loads((results / f"compare_{network}.json").read_text())
    records = [
        record
        for record in records
        if shipped["settings"].items() <= record.items() and "400" in record["tested"]
    ]
    table = summaries(records, structure(network, "published"), shipped["evaluations"])
    assert table == shipped["table"]
