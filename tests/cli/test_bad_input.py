"""Whatever the user does wrong is told in one sentence, and leaves nothing behind."""

import resource
import sys

import pytest
from command_for_tests import RANDOM, prune

from lfgcl_env.cli.main import main
from lfgcl_env.runs.run_folder import RunFolder

HUGE = "9" * 23


def only_sentence(capsys):
    """Return standard error, which must be one sentence."""
    error = capsys.readouterr().err
    assert error.startswith("lfgcl: error: ")
    assert error.count("\n") == 1
    return error


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
        (["resnet20", "--spend-budget"], "--spend-budget is for AMC- environments"),
        (
            ["resnet20", "--protect", "layr1", *RANDOM],
            "no module of the network. Did you mean 'layer1'?",
        ),
        (["resnet20", "--min-channels", "layr1=4", *RANDOM], "Did you mean 'layer1'?"),
        (["AMC-ResNet20-v0", "--horizon", "2"], "--horizon is for LFGCL- environments"),
        (["resnet20", "--device", "gpu"], "device 'gpu' cannot be used"),
        (["resnet20", "--device", "meta"], "device 'meta' cannot be used"),
        (["resnet20", "--criterion", "l7", *RANDOM], "unknown criterion 'l7'"),
        (["resnet20", "--features", "nowhere", *RANDOM], "nowhere"),
        (["resnet20", "--reward", "nowhere:at_all", *RANDOM], "cannot import 'nowhere'"),
        (["resnet20", "--network-arguments", "widht=3", *RANDOM], "does not take 'widht'"),
        (["resnet20", "--budget", "0.001", *RANDOM], "cannot be reached"),
        (["resnet20", "--budget", "0.001:0.5", *RANDOM], "cannot be reached"),
        (["resnet20", "--init-from", "nowhere", *RANDOM], "in nowhere"),
        (["resnet20", "--weights", "random", "--images", "/nowhere"], "unknown images '/nowhere'"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(options, sentence, tmp_path, capsys):
    assert main(["prune", *options, "--out", str(tmp_path / "run")]) == 2
    assert sentence in only_sentence(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--budget", "half"],
        ["--budget", "0.8:0.3"],
        ["--budget", "0.3:0.5:0.8"],
        ["--budget", "0.5:1.5"],
        ["--budget", "1e999"],
        ["--budget", "nan"],
        ["--points", "1"],
        ["--evaluations", "0"],
        ["--evaluations", "1e400"],
        ["--evaluations", HUGE],
        ["--seed", "-1"],
        ["--seed", HUGE],
        ["--agent-seed", "1.5"],
        ["--max-prune-ratio", "0"],
        ["--max-prune-ratio", "0.9", "layer1=0.3"],
        ["--max-prune-ratio", "layer1=half"],
        ["--min-channels", "=4"],
        ["--min-channels", "layer1=0.5"],
        ["--round-to", "layer1=0"],
        ["--protect", "layer1", "--protect", "layer2"],
        ["--num-images", HUGE],
        ["--num-images", "none"],
        ["--input-shape", "3,x"],
        ["--input-shape", "100000"],
        ["--normalization", "0.5/0.5/0.5"],
        ["--network-arguments", "num_classes"],
        ["--network-arguments", "[" * 100_000],
        ["--network-arguments", "{" + '"a":[' * 100_000],
        ["--not-an-option", "3"],
    ],
)
def test_options_that_cannot_be_read_are_one_sentence(options, capsys):
    assert main(["prune", "resnet20", "--out", "run", *options]) == 2
    error = only_sentence(capsys)
    assert options[0] in error
    assert "--help" in error
    assert len(error) < 600


@pytest.mark.parametrize("arguments", [["prun"], ["prune", "resnet20"], [], ["evaluate"]])
def test_wrong_command_lines_are_one_sentence(arguments, capsys):
    assert main(arguments) == 2
    assert "--help" in only_sentence(capsys)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 1 bytes."),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    ],
)
def test_too_little_memory_is_bad_input(error, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("lfgcl_env.cli.prune.gym.make", fail)
    assert prune(tmp_path / "run") == 2
    assert "not enough memory" in only_sentence(capsys)


def test_a_defect_is_one_sentence_that_tells_how_to_report_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lfgcl_env.cli.prune.gym.make", lambda *_, **__: {}["no key"])
    assert prune(tmp_path / "run") == 1
    assert "unexpected KeyError: 'no key' (-v shows the traceback" in only_sentence(capsys)
    assert prune(tmp_path / "run", "-v") == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes")
def test_a_full_disk_is_one_sentence_and_what_was_scored_is_kept(tmp_path, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        assert prune(tmp_path) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith("lfgcl: error: ")
    assert len(RunFolder(tmp_path).records()) == 3
    assert not list(tmp_path.glob("*.partial"))
    assert main(["prune", "--resume", "--out", str(tmp_path)]) == 0
