"""``lfgcl prune``: searches, resumes, and what both print."""

import json
import re
import signal
import subprocess
import sys
import time

import gymnasium as gym
import numpy as np
import pytest
import torch
from command_for_tests import RANDOM, prune, said
from networks_for_tests import plain
from PIL import Image

import lfgcl_env
from lfgcl_env.cli.main import main
from lfgcl_env.runs.run_folder import RunFolder
from lfgcl_env.search.budget_sweep import sweep
from lfgcl_env.search.run_search import run_search


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
    assert recorded["environment"] == "LFGCL-ResNet20-v0"
    assert recorded["seed"] == recorded["agent_seed"] == 0


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


@pytest.mark.slow
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


def test_a_folder_that_holds_a_run_or_cannot_be_written_is_refused(run, tmp_path, capsys):
    capsys.readouterr()
    assert prune(run) == 2
    assert "--resume" in said(capsys)
    assert prune(run / "report.txt" / "below") == 2
    assert "cannot be written" in said(capsys)


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


@pytest.mark.slow
def test_a_shortlist_is_repaired_on_other_images_and_its_winner_kept(tmp_path, capsys):
    out = tmp_path / "run"
    assert prune(out, "--shortlist", "2", "--repair-images", "8") == 0
    assert "as delivered" in capsys.readouterr().out
    best = json.loads((out / "best.json").read_text())
    assert len(best["shortlist"]) == 2
    assert best["shortlist"][0]["searched"]["keep"] == best["keep"]


def test_too_few_images_for_the_repair_are_refused_before_the_search(tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(5):
        Image.new("RGB", (32, 32), (40 * index, 90, 20)).save(folder / f"{index}.png")
    options = ["--images", str(folder), "--shortlist", "2", "--repair-images", "21"]
    assert prune(tmp_path / "run", *options) == 2
    assert "only 20 with views: lower --repair-images" in said(capsys)


def test_runs_from_python_and_from_the_command_record_the_same(tmp_path):
    torch.set_num_threads(1)
    kwargs = {"weights": "random", "images": "random", "num_images": 4, "seed": 7}
    env = gym.make("LFGCL-ResNet20-v0", **kwargs)
    run_search(env, "random", 3, agent_seed=1, out=tmp_path / "python", start="allocation")
    assert prune(tmp_path / "command", "--seed", "7", "--agent-seed", "1") == 0
    recorded = RunFolder(tmp_path / "command").asked()
    assert recorded == RunFolder(tmp_path / "python").asked()
    assert (recorded["seed"], recorded["agent_seed"]) == (7, 1)
    resume = ["prune", "--resume", "--evaluations", "4", "--out"]
    assert main([*resume, str(tmp_path / "python")]) == 0
    assert len(RunFolder(tmp_path / "python").records()) == 4


def test_a_run_on_a_module_can_only_go_on_from_python(tmp_path, capsys):
    env = gym.make("LFGCL-v0", network=plain(), images="random", num_images=4)
    run_search(env, "random", 2, out=tmp_path)
    capsys.readouterr()
    assert main(["prune", "--resume", "--evaluations", "3", "--out", str(tmp_path)]) == 2
    assert "unknown network 'Sequential'" in said(capsys)


def test_blocks_that_go_whole_are_reported_loaded_and_validated(tmp_path, capsys):
    options = ["--min-channels", "0", "--budget", "0.03"]
    assert prune(tmp_path / "run", *options) == 0
    best = json.loads((tmp_path / "run" / "best.json").read_text())
    removed = [group["name"] for group in best["groups"] if group["keep"] == 0]
    assert removed
    assert f"\nremoved: {', '.join(removed)}\n" in (tmp_path / "run" / "report.txt").read_text()
    network = lfgcl_env.load_pruned(tmp_path / "run" / "pruned.safetensors")
    assert sum(parameter.numel() for parameter in network.parameters()) == best["params"]
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    board = str(tmp_path / "leaderboard.jsonl")
    assert main(["validate", "--add", str(tmp_path / "run"), board]) == 0
    assert main(["validate", board]) == 0
    assert "all 1 entries hold" in capsys.readouterr().out


def test_protected_layers_and_limits_hold_in_a_run_its_resumption_and_the_leaderboard(
    tmp_path, capsys
):
    limits = ["--max-prune-ratio", "layer2.*=0.3", "*=0.9", "--min-channels", "layer3=7"]
    assert prune(tmp_path / "run", "--protect", "layer1", "conv1", *limits, "--budget", "0.7") == 0
    best = json.loads((tmp_path / "run" / "best.json").read_text())
    kept = {group["name"]: group["keep"] for group in best["groups"]}
    assert sorted({name.partition(".")[0] for name in kept}) == ["layer2", "layer3"]
    assert all(keep >= (23 if name < "layer3" else 7) for name, keep in kept.items())
    assert best["settings"]["protect"] == ["layer1", "conv1"]
    network = lfgcl_env.load_pruned(tmp_path / "run" / "pruned.safetensors")
    assert network.layer1[0].conv1.weight.shape == (16, 16, 3, 3)
    assert main(["prune", "--resume", "--out", str(tmp_path / "run"), "--evaluations", "4"]) == 0
    again = ["--max-prune-ratio", "*=0.9", "--resume", "--out", str(tmp_path / "run")]
    assert main(["prune", *again]) == 2
    assert "max_prune_ratio=[['layer2.*', 0.3], ['*', 0.9]]" in said(capsys)
    board = str(tmp_path / "leaderboard.jsonl")
    assert main(["validate", "--add", str(tmp_path / "run"), board]) == 0
    assert main(["validate", board]) == 0
    entry = json.loads((tmp_path / "leaderboard.jsonl").read_text())
    assert entry["problem"]["max_prune_ratio"] == [["layer2.*", 0.3], ["*", 0.9]]


@pytest.mark.slow
def test_two_workers_find_the_same_each_time_and_go_on_with_it(tmp_path, capfd):
    for name, evaluations in (("whole", 8), ("part", 4), ("again", 8)):
        out = tmp_path / ("part" if name == "again" else name)
        resume = ["--resume"] if name == "again" else []
        options = ["--workers", "2", "--agent", "random", "--shortlist", "0"]
        assert prune(out, *options, *resume, evaluations=evaluations) == 0
    shown = capfd.readouterr().err
    assert "2 workers" in shown
    assert re.search(r"workers \d+% busy", shown)
    evaluations = [
        [record.evaluation for record in RunFolder(tmp_path / name).records()]
        for name in ("whole", "part")
    ]
    assert len(evaluations[0]) == 8
    assert evaluations[0] == evaluations[1]
    networks = [(tmp_path / name / "pruned.safetensors").read_bytes() for name in ("whole", "part")]
    assert networks[0] == networks[1]


def test_workers_that_are_not_there_are_refused(tmp_path, capsys):
    assert prune(tmp_path / "run", "--workers", "2", "--engine", "serial") == 2
    assert "engine 'serial' is this process alone" in said(capsys)
    assert prune(tmp_path / "run", "--workers", "0") == 2
    assert prune(tmp_path / "run", "--engine", "proceses") == 2
    assert "Did you mean 'processes'" in said(capsys)
    assert not (tmp_path / "run").exists()
