"""The command ``lfgcl``, as its users meet it."""

import csv
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

import lfgcl_env
from lfgcl_env.cli.main import main
from lfgcl_env.images import LabelledImages, top1
from lfgcl_env.runs.run_folder import RunFolder
from lfgcl_env.search.budget_sweep import sweep

RANDOM = [*["--weights", "random", "--images", "random", "--num-images", "4"], "--shortlist", "0"]


@pytest.fixture(autouse=True)
def threads_as_before():
    """The command sets PyTorch's threads for its process, which is ours here."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def prune(out, *options, target="LFGCL-ResNet20-v0", agent="random", evaluations=3):
    search = ["--agent", agent, "--evaluations", str(evaluations), "--out", str(out)]
    return main(["prune", *([target] if target else []), *search, *RANDOM, *options])


def said(capsys):
    """What was written to standard error, which must be one sentence."""
    error = capsys.readouterr().err
    assert error.startswith("lfgcl: error: ")
    assert error.count("\n") == 1
    return error


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert prune(out) == 0
    return out


@pytest.fixture
def test_set(monkeypatch):
    """Labelled noise for CIFAR-10's test images."""
    images = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labelled = LabelledImages(images, torch.arange(20) % 10, "CIFAR10 test")
    monkeypatch.setattr("lfgcl_env.cli.evaluate.load_test_set", lambda *_, **__: labelled)
    return labelled


def test_prune_writes_a_run_and_says_what_comes_next(tmp_path, capsys):
    out = tmp_path / "runs" / "r20"
    assert prune(out) == 0
    printed = capsys.readouterr().out
    best = json.loads((out / "best.json").read_text())
    assert f"similarity {best['similarity']:.4f}" in printed
    assert f"lfgcl evaluate {out} --data CIFAR10" in printed
    assert str(out / "pruned.safetensors") in printed
    assert len((out / "evaluations.jsonl").read_text().splitlines()) == 3
    recorded = json.loads((out / "arguments.json").read_text())["arguments"]
    assert recorded["num_images"] == 4
    assert recorded["budget"] == 0.5
    assert recorded["target"] == "LFGCL-ResNet20-v0"


def test_prune_takes_a_network_a_folder_of_images_and_a_budget(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "images" / f"{index}.png")
    options = ["--images", str(tmp_path / "images"), "--budget", "0.6", "--budget-metric", "params"]
    assert prune(tmp_path / "run", *options, target="resnet20", evaluations=2) == 0
    best = json.loads((tmp_path / "run" / "best.json").read_text())
    assert 0.55 < best["params_ratio"] <= 0.6
    assert len(lfgcl_env.load_pruned(tmp_path / "run" / "pruned.safetensors")(
        torch.zeros(2, 3, 32, 32)
    )) == 2  # fmt: skip


def test_a_second_run_with_the_same_seed_finds_the_same(tmp_path, run):
    assert prune(tmp_path / "again") == 0
    for name in ("best.json", "pruned.safetensors", "report.txt"):
        assert (tmp_path / "again" / name).read_bytes() == (run / name).read_bytes()


def test_resume_needs_no_arguments_again_and_may_have_more_evaluations(tmp_path, capsys):
    assert prune(tmp_path) == 0
    assert main(["prune", "--resume", "--out", str(tmp_path), "--evaluations", "4"]) == 0
    assert len(RunFolder(tmp_path).records()) == 4
    capsys.readouterr()
    assert main(["prune", "--resume", "--out", str(tmp_path), "--budget", "0.4"]) == 2
    assert "budget=0.5 and cannot go on with 0.4" in said(capsys)


def test_evaluate_compares_pruned_network_and_baseline(run, test_set, capsys):
    for path in (run, run / "pruned.safetensors"):
        assert main(["evaluate", str(path), "--data", "CIFAR10"]) == 0
        printed = capsys.readouterr().out
        best = json.loads((run / "best.json").read_text())
        assert "20 images" in printed
        assert "40,551,040" in printed
        assert f"{best['macs']:,}" in printed


def test_a_range_of_budgets_gives_a_front_whose_accuracy_is_told(tmp_path, test_set, capsys):
    options = ["--budget", "0.3:0.5", "--points", "2"]
    assert prune(tmp_path, *options) == 0
    printed = capsys.readouterr().out
    assert "30.0% to 50.0% of the MACs may remain" in printed
    assert "3 strategies were scored on budgets from 0.3 to 0.5" in printed
    sweep = json.loads((tmp_path / "sweep.json").read_text())
    for point in sweep["points"]:
        assert f"{point['searched']['macs']:,}" in printed
    assert f"lfgcl evaluate {tmp_path} --data CIFAR10" in printed

    assert main(["evaluate", str(tmp_path), "--data", "CIFAR10"]) == 0
    printed = capsys.readouterr().out
    assert "40,551,040  100.0%" in printed
    assert [line.split()[0] for line in printed.splitlines()[2:5]] == ["baseline", "0.30", "0.50"]
    with (tmp_path / "sweep_accuracy.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["network"] for row in rows] == [
        "baseline", "sweep/pruned_0.30.safetensors", "sweep/pruned_0.50.safetensors",
    ]  # fmt: skip
    assert (tmp_path / "sweep_accuracy.png").read_bytes().startswith(b"\x89PNG")
    for row in rows[1:]:
        network = lfgcl_env.load_pruned(tmp_path / row["network"])
        assert float(row["top1"]) == top1(network, test_set)
        assert main(["evaluate", str(tmp_path / row["network"]), "--data", "CIFAR10"]) == 0
        assert f"{float(row['top1']):.2f} %" in capsys.readouterr().out

    assert main(["prune", "--resume", "--out", str(tmp_path), "--points", "3"]) == 0
    assert (tmp_path / "sweep" / "pruned_0.40.safetensors").exists()


def test_an_interrupted_front_says_how_far_it_is(tmp_path, monkeypatch, capsys):
    def two(*arguments, **options):
        points = sweep(*arguments, **options)
        yield next(points)
        yield next(points)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("lfgcl_env.search.result.sweep", two)
        assert prune(tmp_path, "--budget", "0.3:0.5", "--points", "3") == 130
    assert (
        "interrupted after 3 evaluations and 2 of 3 networks: go on with "
        f"`lfgcl prune --resume --out {tmp_path}`"
    ) in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path), "--data", "CIFAR10"]) == 2
    assert "has not ended" in said(capsys)
    assert main(["prune", "--resume", "--out", str(tmp_path)]) == 0
    assert len(list((tmp_path / "sweep").glob("*.safetensors"))) == 3


def test_a_run_begins_from_another_and_resumes_from_anywhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert prune("first", agent="lfgcl") == 0
    begun = ["--init-from", "first"]
    assert prune("second", *begun, agent="lfgcl", target="resnet32", evaluations=1) == 0
    assert len(RunFolder("second").records()) == 1
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["prune", "--resume", "--out", "../second", "--evaluations", "2"]) == 0
    assert len(RunFolder("../second").records()) == 2
    capsys.readouterr()
    (tmp_path / "first" / "agent.zip").write_bytes(b"another")
    assert main(["prune", "--resume", "--out", "../second", "--evaluations", "3"]) == 2
    assert "does not fit here" in said(capsys)
    assert prune("third", "--init-from", "../first", agent="ddpg") == 2
    assert "made by the agent 'lfgcl'" in said(capsys)


@pytest.mark.data("CIFAR10", "resnet20")
def test_evaluate_on_cifar10(tmp_path, capsys):
    search = ["--agent", "random", "--evaluations", "2", "--num-images", "32"]
    search += ["--shortlist", "2", "--repair-images", "32"]
    assert main(["prune", "resnet20", *search, "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "91.73 %" in told  # where the images are at hand, the search itself ends with it
    assert main(["evaluate", str(tmp_path), "--data", "CIFAR10"]) == 0
    assert capsys.readouterr().out in told


def test_inspect_lists_groups_cost_and_what_is_left_alone(capsys):
    assert main(["inspect", "LFGCL-ResNet20-v0", "--weights", "random"]) == 0
    printed = capsys.readouterr().out
    assert "layer3.2.conv1  64" in printed
    assert "9 groups" in printed
    assert "MACs 40,551,040" in printed
    assert "an addition couples it" in printed
    options = ["--weights", "random", "--input-size", "64"]
    assert main(["inspect", "torchvision:resnet18", *options]) == 0
    assert "(3, 64, 64)" in capsys.readouterr().out


def test_list_and_version(capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("LFGCL-ResNet56-v0", "ddpg", "random", "vgg16_bn"))
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert lfgcl_env.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["LFGCL-ResNet55-v0"], "Did you mean 'LFGCL-ResNet56-v0'?"),
        (["CartPole-v1"], "unknown environment 'CartPole-v1'"),
        (["rsnet20"], "Did you mean 'resnet20'?"),
        ([], "what is to be pruned?"),
        (["resnet20", "--agent", "dpg"], "Did you mean 'ddpg'?"),
        (["resnet20", "--agent", "nowhere.at:all"], "cannot import 'nowhere.at'"),
        (["resnet20", "--agent", "lfgcl_env.agents.random:mak"], "Did you mean 'make'?"),
        (["resnet20", "--resume"], "there is no run to go on with"),
        (["resnet20", "--device", "gpu"], "device 'gpu' cannot be used here"),
        (["resnet20", "--criterion", "l7", *RANDOM], "unknown criterion 'l7'"),
        (["resnet20", "--budget", "0.001", *RANDOM], "cannot be reached"),
        (["resnet20", "--budget", "0.001:0.5", *RANDOM], "cannot be reached"),
        (["resnet20", "--budget", "0.5:1.5", *RANDOM], "at most at 1, got [0.5, 1.5]"),
        (["resnet20", "--init-from", "nowhere", *RANDOM], "no run to begin from in nowhere"),
        (["resnet20", "--weights", "random", "--images", "/nowhere"], "unknown images '/nowhere'"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(options, sentence, tmp_path, capsys):
    assert main(["prune", *options, "--out", str(tmp_path / "run")]) == 2
    assert sentence in said(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["prun"],
        ["prune", "resnet20"],
        ["prune", "resnet20", "--out", "run", "--budget", "half"],
        ["prune", "resnet20", "--out", "run", "--budget", "0.8:0.3"],
        ["prune", "resnet20", "--out", "run", "--budget", "0.3:0.5:0.8"],
        ["prune", "resnet20", "--out", "run", "--budget", "0.3:0.8", "--points", "1"],
        ["prune", "resnet20", "--out", "run", "--evaluations", "0"],
        ["prune", "resnet20", "--out", "run", "--seed", "-1"],
        ["prune", "resnet20", "--out", "run", "--input-size", "3,32"],
    ],
)
def test_wrong_command_lines_are_one_sentence(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "--help" in said(capsys)


def test_a_folder_that_holds_a_run_or_cannot_be_written_is_refused(run, tmp_path, capsys):
    capsys.readouterr()
    assert prune(run) == 2
    assert "--resume" in said(capsys)
    assert prune(run / "report.txt" / "below") == 2
    assert "cannot be written" in said(capsys)


def test_evaluate_says_what_is_missing(run, tmp_path, test_set, capsys):
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path), "--data", "CIFAR10"]) == 2
    assert "no pruned network" in said(capsys)
    (tmp_path / "arguments.json").write_bytes((run / "arguments.json").read_bytes())
    assert main(["evaluate", str(tmp_path), "--data", "CIFAR10"]) == 2
    assert f"`lfgcl prune --resume --out {tmp_path}` goes on" in said(capsys)
    (tmp_path / "arguments.json").write_text("{")
    assert main(["prune", "--resume", "--out", str(tmp_path)]) == 2
    assert "is damaged" in said(capsys)
    short = tmp_path / "short.safetensors"
    short.write_bytes((run / "pruned.safetensors").read_bytes()[:1000])
    assert main(["evaluate", str(short), "--data", "CIFAR10"]) == 2
    assert "cut short" in said(capsys)


def test_evaluate_refuses_images_of_another_kind(run, monkeypatch, capsys):
    capsys.readouterr()
    labelled = LabelledImages(torch.zeros(2, 3, 32, 32), torch.tensor([0, 99]), "CIFAR100 test")
    monkeypatch.setattr("lfgcl_env.cli.evaluate.load_test_set", lambda *_, **__: labelled)
    assert main(["evaluate", str(run), "--data", "CIFAR100"]) == 2
    assert "100 classes" in said(capsys)


def test_an_own_agent_that_raises_is_shown_whole_and_can_be_mended(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    code = """
from lfgcl_env.agents.random import RandomAgent

class Fragile(RandomAgent):
    def learn(self, total_timesteps, callback=None):
        super().learn(2, callback)
        {}
        return super().learn(total_timesteps, callback)

make = Fragile
"""
    (tmp_path / "fragile_agent.py").write_text(code.format("1 / 0"))
    assert prune("run", agent="fragile_agent:make") == 1
    error = capsys.readouterr().err
    assert "1 / 0" in error
    assert "ZeroDivisionError after 2 evaluations, which are kept in run" in error
    (tmp_path / "fragile_agent.py").write_text(code.format("pass # mended"))
    sys.modules.pop("fragile_agent")
    assert main(["prune", "--resume", "--out", "run"]) == 0
    assert len(RunFolder("run").records()) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_says_how_to_go_on_and_loses_nothing(tmp_path):
    out = tmp_path / "run"
    options = ["--agent", "random", "--evaluations", "100000", "--out", str(out), *RANDOM]
    command = [sys.executable, "-m", "lfgcl_env.cli.main", "prune", "resnet20", *options]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run as a shell's background job, children would ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    lines = out / "evaluations.jsonl"
    deadline = time.monotonic() + 120
    while not lines.exists() or lines.stat().st_size < 1000:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error
    scored = len(RunFolder(out).records())
    last = error.strip().splitlines()[-1]
    assert last == (
        f"lfgcl: interrupted after {scored} evaluations: go on with "
        f"`lfgcl prune --resume --out {out}`"
    )
    assert not list(out.glob("*.partial"))
    assert main(["prune", "--resume", "--out", str(out), "--evaluations", str(scored + 1)]) == 0
    assert len(RunFolder(out).records()) == scored + 1


def test_a_shortlist_is_repaired_on_other_images_and_its_winner_kept(tmp_path, capsys):
    out = tmp_path / "run"
    assert prune(out, "--shortlist", "2", "--repair-images", "8") == 0
    assert "after sequential repair" in capsys.readouterr().out
    best = json.loads((out / "best.json").read_text())
    assert len(best["shortlist"]) == 2
    assert best["shortlist"][0]["searched"]["keep"] == best["keep"]


def test_too_few_images_for_the_repair_are_refused_before_the_search(tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(5):
        Image.new("RGB", (32, 32), (40 * index, 90, 20)).save(folder / f"{index}.png")
    options = ["--images", str(folder), "--shortlist", "2", "--repair-images", "8"]
    assert prune(tmp_path / "run", *options) == 2
    assert "lower --repair-images" in said(capsys)
