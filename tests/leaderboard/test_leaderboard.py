"""A leaderboard's entries hold when they are replayed, and those that were tampered with do not."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lfgcl_env.cli.main import main
from lfgcl_env.edge.sealed import sealed
from lfgcl_env.images import LabelledImages, top1
from lfgcl_env.leaderboard import Entry, add_entries, read_entries, replay
from lfgcl_env.leaderboard.entry import checked
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.repair.profiles import SequentialOptions

SHIPPED = Path(__file__).parents[2] / "benchmarks" / "leaderboard.jsonl"
SETTINGS = {"criterion": "l1", "repair": "none", "similarity": "cosine"}
SEQUENTIAL = {"images": 8, "rows": 512, "relu_aware": 0}


@pytest.fixture(scope="module")
def test_set():
    images = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return LabelledImages(images, torch.arange(20) % 10, "CIFAR10 test")


@pytest.fixture
def at_hand(test_set, monkeypatch):
    """Labelled noise for CIFAR-10's test images."""
    monkeypatch.setattr("lfgcl_env.cli.evaluate.load_test_set", lambda *_, **__: test_set)


@pytest.fixture(scope="module")
def noise():
    """The images of ``gym.make`` with images="random": 4 to score, then 8 to repair."""
    return torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def problem(noise):
    return PruningProblem(load_baseline("resnet20", "random"), noise[:4], budget=0.5, **SETTINGS)


@pytest.fixture(scope="module")
def entry(problem, noise, test_set):
    """An entry that holds."""
    keep = problem.project(np.linspace(0.3, 0.7, 9))
    options = SequentialOptions(rows=512, relu_aware=0)
    network, _ = problem.finish(keep, noise[4:], options)
    evaluation = problem.evaluate(keep)
    return Entry(
        method="sloping",
        author="tests",
        evaluations=1,
        problem={
            "network": "resnet20",
            "weights": "random",
            "images": "random",
            "num_images": 4,
            "seed": 0,
            "budget": 0.5,
            **SETTINGS,
        },
        keep={g.name: int(k) for g, k in zip(problem.groups, keep, strict=True)},
        macs=evaluation.macs,
        similarity=evaluation.similarity,
        top1=top1(network, test_set),
        test_set="CIFAR10",
        sequential=SEQUENTIAL,
    )


def faults(entry, problem, noise, test_set):
    return "; ".join(replay(entry, problem, noise[4:], test_set).faults)


def written(path, *entries):
    path.write_text("".join(f"{json.dumps(asdict(entry))}\n" for entry in entries))
    return str(path)


def said(capsys):
    """What was written to standard error, which must be one sentence."""
    error = capsys.readouterr().err
    assert error.startswith("lfgcl: error: ")
    assert error.count("\n") == 1
    return error


def test_an_honest_entry_is_reproduced_exactly(entry, problem, noise, test_set):
    found = replay(entry, problem, noise[4:], test_set)
    assert found.faults == ()
    assert (found.macs, found.top1) == (entry.macs, entry.top1)
    assert found.similarity == pytest.approx(entry.similarity, abs=1e-6)


def test_a_top1_without_repair_is_that_of_the_network_as_it_was_scored(entry, problem, test_set):
    network = problem.compress([entry.keep[group.name] for group in problem.groups])
    plain = replace(entry, sequential=None, top1=top1(network, test_set))
    assert replay(plain, problem, None, test_set).faults == ()


@pytest.mark.parametrize(
    ("claim", "fault"),
    [
        ({"macs": 1}, "MACs are"),
        ({"similarity": 2e-4}, "similarity is"),
        ({"top1": 0.2}, "top-1 is"),
    ],
)
def test_a_claim_that_is_too_good_is_a_fault(entry, problem, noise, test_set, claim, fault):
    ((name, more),) = claim.items()
    tampered = replace(entry, **{name: getattr(entry, name) + more})
    assert faults(tampered, problem, noise, test_set).startswith(fault)


def test_numerical_differences_of_machines_are_none(entry, problem, noise, test_set):
    near = replace(entry, similarity=entry.similarity - 9e-5, top1=entry.top1 + 0.1)
    assert faults(near, problem, noise, test_set) == ""


def test_another_strategy_than_that_of_the_claims_is_a_fault(entry, problem, noise, test_set):
    stolen = replace(entry, keep={name: count // 2 for name, count in entry.keep.items()})
    found = faults(stolen, problem, noise, test_set)
    assert "MACs are" in found
    assert "similarity is" in found


def test_a_strategy_above_its_budget_is_a_fault(entry, problem, noise):
    tight = replace(entry, problem=entry.problem | {"budget": 0.45}, top1=None, test_set=None)
    assert faults(tight, problem, noise, None) == "exceeds its budget of 0.45 of the macs"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"layer1.0.conv1": 17}, "keeps 17 of the 16 channels of 'layer1.0.conv1'"),
        ({"layer1.0.conv1": 0}, "keeps 0 of the 16 channels of 'layer1.0.conv1'"),
        ({"layer1.0.conv7": 4}, "'layer1.0.conv7', which is no group of this network"),
        (None, "does not say how many channels of 'layer1.0.conv1' are kept"),
    ],
)
def test_what_is_no_strategy_is_a_fault(entry, problem, noise, change, fault):
    keep = entry.keep | (change or {})
    if change is None:
        del keep["layer1.0.conv1"]
    assert fault in faults(replace(entry, keep=keep), problem, noise, None)


def test_the_command_says_that_all_entries_hold(entry, tmp_path, at_hand, capsys):
    path = written(tmp_path / "board.jsonl", entry, replace(entry, method="again"))
    assert main(["validate", path]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["1", "sloping"], ["2", "again"]]
    assert all(line.endswith("holds") for line in lines[1:3])
    assert f"{entry.macs:,}" in lines[1]
    assert lines[-1] == "all 2 entries hold"


def test_the_command_fails_and_names_the_entries_that_do_not_hold(entry, tmp_path, at_hand, capsys):
    better = replace(entry, method="better", similarity=entry.similarity + 0.01)
    path = written(tmp_path / "board.jsonl", entry, better)
    assert main(["validate", path]) == 2
    out, error = capsys.readouterr()
    assert error.splitlines()[-1] == (
        "lfgcl: error: 1 of 2 entries do not hold: entry 2 (better, resnet20 at 0.5)"
    )
    assert f"similarity is {entry.similarity:.5f}, not {better.similarity:.5f}" in out


def test_accuracy_is_left_out_where_there_are_no_test_images(entry, tmp_path, capsys):
    path = written(tmp_path / "board.jsonl", entry)
    assert main(["validate", path, "--data-root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "top-1 was not measured: CIFAR10 is not in" in out
    assert " %" not in out.splitlines()[1]
    assert out.endswith("all 1 entries hold, less the top-1 of 1, which was not measured\n")


def damage_said(capsys):
    """What was said of the one line of a file, which must be one sentence."""
    out, error = capsys.readouterr()
    assert error.splitlines()[-1] == "lfgcl: error: 1 of 1 entries do not hold: line 1"
    (said,) = [line for line in out.splitlines() if "line 1: " in line]
    return said


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"macs": "many"}, "line 1: 'macs' should be a valid integer, got 'many'"),
        ({"macs": -1}, "'macs' should be greater than or equal to 0, got -1"),
        ({"similarity": float("nan")}, "'similarity' should be a finite number, got nan"),
        ({"similarity": 2.0}, "'similarity' should be less than or equal to"),
        ({"keep": {"layer1.0.conv1": 1.5}}, "'keep.layer1.0.conv1' should be a valid integer"),
        ({"test_set": None}, "top1 and test_set belong together"),
        ({"test_set": "CIFAR11"}, "unknown test_set 'CIFAR11'"),
        ({"sequential": {"rows": 512}}, "sequential repair's images must be a whole number"),
        ({"sequential": {"images": 8, "row": 1}}, "Did you mean 'rows'?"),
        ({"sequential": {"images": 8, "rows": 10**12}}, "sequential repair's rows must be"),
        ({"sequential": {"images": 10**9}}, "at most 4,294,967,296 are accepted"),
        ({"evaluations": 0}, "'evaluations' should be greater than or equal to 1, got 0"),
        ({"simlarity": 1.0}, "unknown field 'simlarity'. Did you mean 'similarity'?"),
        ({"author": "a" * 201}, "'author' should have at most 200 characters"),
    ],
)
def test_a_malformed_entry_is_refused_in_one_sentence(entry, tmp_path, capsys, change, error):
    path = tmp_path / "board.jsonl"
    path.write_text(json.dumps(asdict(entry) | change) + "\n")
    assert main(["validate", str(path)]) == 2
    assert error in damage_said(capsys)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"network": "resnet200"}, "Did you mean 'resnet20'?"),
        ({"network": "os:getcwd"}, "'os:getcwd', and importing it would run somebody's code"),
        ({"network": "lfgcl_env.agents.random:make"}, "only networks of this package"),
        ({"network_arguments": {"num_classes": 10**9}}, "'num_classes' of resnet20 must be"),
        ({"network_arguments": {"depth": 20}}, "resnet20 cannot be built"),
        ({"criterion": "l3"}, "unknown criterion 'l3'"),
        ({"scope": "outer"}, "unknown scope 'outer'"),
        ({"budget": 1.5}, "budget must be a number above 0 and at most 1"),
        ({"budget": [0.3, 0.5]}, "budget must be a number above 0 and at most 1"),
        ({"weights": "mine.pth"}, "unknown weights 'mine.pth'"),
        ({"images": "photos/"}, "unknown images 'photos/'"),
        ({"num_images": 10**6}, "at most 4,294,967,296 are accepted"),
        ({"input_shape": [3, 8, 8]}, "resnet20 is compared on inputs of its own size"),
        ({"horizon": 3}, "horizon must be 1"),
        ({"reward": "accuracy"}, "reward must be 'similarity'"),
        ({"device": "cpu"}, "unknown argument of the problem 'device'"),
    ],
)
def test_an_unknown_problem_is_refused_in_one_sentence(entry, tmp_path, capsys, change, error):
    path = written(tmp_path / "board.jsonl", replace(entry, problem=entry.problem | change))
    assert main(["validate", path]) == 2
    assert error in damage_said(capsys)


def test_a_line_that_is_no_entry_fails_alone(entry, tmp_path, at_hand, capsys):
    path = written(tmp_path / "board.jsonl", entry, replace(entry, method="again"))
    good = Path(path).read_text()
    Path(path).write_text("[" * 5000 + "\n" + good)
    assert main(["validate", path]) == 2
    out, error = capsys.readouterr()
    assert error.splitlines()[-1] == "lfgcl: error: 1 of 3 entries do not hold: line 1"
    assert sum(line.endswith("holds") for line in out.splitlines()) == 2


def test_what_an_entry_does_not_say_has_the_defaults(entry):
    whole = checked(entry)
    assert whole.problem.items() > entry.problem.items()
    assert whole.problem["scope"] == "inner"
    said = replace(entry, problem=entry.problem | {"features": ["layer3"], "horizon": 1})
    assert checked(said).problem == whole.problem | {"features": ["layer3"]}


def test_a_problem_that_cannot_be_made_is_a_fault_of_its_entry_alone(
    entry, tmp_path, at_hand, capsys
):
    low = replace(entry, problem=entry.problem | {"budget": 0.001, "seed": 1})
    absent = replace(entry, problem=entry.problem | {"images": "CIFAR100"})
    path = written(tmp_path / "board.jsonl", low, entry, absent)
    assert main(["validate", path, "--data-root", str(tmp_path)]) == 2
    out, error = capsys.readouterr()
    assert error.endswith(
        "1 of 3 entries do not hold: entry 1 (sloping, resnet20 at 0.001); "
        "1 of 3 entries could not be measured: entry 3 (sloping, resnet20 at 0.5)\n"
    )
    lines = out.splitlines()
    assert "a budget of 0.001" in lines[1]
    assert lines[2].endswith("holds")
    assert "CIFAR100 is not in" in lines[3]
    written(path_of := tmp_path / "lacking.jsonl", entry, absent)
    assert main(["validate", str(path_of), "--data-root", str(tmp_path)]) == 2
    assert "error: 1 of 2 entries could not be measured: entry 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "error"),
    [("[1]\n", "line 1: should be an object, got [1]"), ("{\n", "line 1: no JSON (")],
)
def test_a_line_that_is_no_object_is_refused(tmp_path, capsys, text, error):
    path = tmp_path / "board.jsonl"
    path.write_text(text)
    assert main(["validate", str(path)]) == 2
    assert error in damage_said(capsys)


@pytest.mark.parametrize(
    ("content", "error"), [(b"", "holds no entries"), (b"\xff\xfe", "is not text")]
)
def test_a_file_that_is_no_leaderboard_is_refused(tmp_path, capsys, content, error):
    path = tmp_path / "board.jsonl"
    path.write_bytes(content)
    assert main(["validate", str(path)]) == 2
    assert error in said(capsys)


def test_entries_are_added_and_the_same_methods_replaced(entry, tmp_path):
    path = tmp_path / "board.jsonl"
    other = replace(entry, author="somebody else")
    add_entries(path, [entry, other])
    better = replace(entry, evaluations=400)
    add_entries(path, [better, replace(entry, method="third")])
    expected = [better, other, replace(entry, method="third")]
    assert read_entries(path) == [checked(one) for one in expected]


def test_what_could_not_be_read_again_is_not_written(entry, tmp_path):
    path = tmp_path / "board.jsonl"
    add_entries(path, [entry])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="would run somebody's code"):
        add_entries(path, [replace(entry, problem=entry.problem | {"network": "my:network"})])
    assert path.read_bytes() == before


def test_a_run_is_added_and_holds(tmp_path, capsys):
    run, board = str(tmp_path / "run"), str(tmp_path / "board.jsonl")
    noise = ["--weights", "random", "--images", "random", "--num-images", "4"]
    search = ["--agent", "random", "--evaluations", "2", "--shortlist", "0"]
    assert main(["prune", "LFGCL-ResNet20-v0", "--out", run, *noise, *search]) == 0
    assert main(["validate", board, "--add", run, "--author", "me"]) == 0
    assert capsys.readouterr().out.endswith(f"all 1 entries hold\n1 added to {board}\n")
    (entry,) = read_entries(board)
    assert (entry.method, entry.author, entry.evaluations, entry.top1) == ("random", "me", 2, None)
    assert entry.problem["network"] == "resnet20"
    assert main(["validate", board, "--add", run, "--author", "me"]) == 0
    assert capsys.readouterr().out.endswith("in place of the same method's\n")
    best = tmp_path / "run" / "best.json"
    honest = best.read_text()
    best.write_text(honest.replace('"similarity": 0.', '"similarity": 0.9', 1))
    assert main(["validate", board, "--add", run, "--author", "a liar"]) == 2
    assert "its checksum does not fit" in said(capsys)
    forged = json.loads(best.read_text())
    best.write_text(sealed({k: v for k, v in forged.items() if k != "checksum"}))
    assert main(["validate", board, "--add", run, "--author", "a forger"]) == 2
    assert "do not hold" in capsys.readouterr().err
    assert read_entries(board) == [entry]
    assert main(["validate", board, "--add", str(tmp_path / "none")]) == 2
    assert "there is no run" in capsys.readouterr().err
    ranged = [*noise, *search, "--budget", "0.4:0.6", "--points", "2"]
    assert main(["prune", "resnet20", "--out", f"{run}s", *ranged]) == 0
    assert main(["validate", board, "--add", f"{run}s"]) == 2
    assert "is on a range of budgets" in capsys.readouterr().err
    assert len(read_entries(board)) == 1


def test_a_layerwise_run_says_so_and_replaces_no_global_one(tmp_path):
    noise = ["--weights", "random", "--images", "random", "--num-images", "4"]
    search = ["--agent", "random", "--evaluations", "1", "--shortlist", "0"]
    board, methods = str(tmp_path / "board.jsonl"), ["random", "random (AMC, similarity)"]
    for name, reward in (("LFGCL", []), ("AMC", ["--reward", "similarity"])):
        run = str(tmp_path / name)
        assert main(["prune", f"{name}-ResNet20-v0", "--out", run, *noise, *search, *reward]) == 0
        assert main(["validate", board, "--add", run]) == 0
    assert [entry.method for entry in read_entries(board)] == methods


def test_the_shipped_leaderboard_can_be_read():
    entries = read_entries(SHIPPED)
    assert {"uniform", "l1", "allocation"} <= {entry.method for entry in entries}


@pytest.mark.slow
@pytest.mark.data("CIFAR10", "resnet20")
def test_the_shipped_leaderboard_holds_before_accuracy(tmp_path, capsys):
    unlabelled = [replace(e, top1=None, test_set=None) for e in read_entries(SHIPPED)]
    resnet20 = [e for e in unlabelled if e.problem["network"] == "resnet20"]
    assert main(["validate", written(tmp_path / "board.jsonl", *resnet20)]) == 0
    assert capsys.readouterr().out.endswith(f"all {len(resnet20)} entries hold\n")
