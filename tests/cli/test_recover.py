"""``lfgcl recover``: a better network beside the pruned one, or none."""

import os
import shutil
import signal

import pytest
import torch
from command_for_tests import said

from lfgcl_env import load_pruned
from lfgcl_env.cli.main import main
from lfgcl_env.page import write_page
from lfgcl_env.recovery.distilling import Training
from lfgcl_env.runs.best import read_best
from lfgcl_env.runs.recoveries import read_recoveries

pytestmark = pytest.mark.usefixtures("short_epochs")

FEW = ["--num-images", "256", "--batch-size", "32", "--epochs", "8", "--learning-rate", "0.0005"]


@pytest.fixture
def own_run(run, tmp_path):
    """A copy of the run, which may be changed."""
    return shutil.copytree(run, tmp_path / "run")


def weights(file):
    return torch.cat(
        [tensor.flatten().float() for tensor in load_pruned(file).state_dict().values()]
    )


def test_a_run_gets_a_recovered_network_of_the_same_sizes(own_run, capsys):
    assert main(["recover", str(own_run), *FEW]) == 0
    printed = capsys.readouterr().out
    file = own_run / "recovered.safetensors"
    assert "8 epochs of 224 images from random, no labels" in printed
    assert str(file) in printed
    before, after = (
        load_pruned(own_run / f"{name}.safetensors") for name in ("pruned", "recovered")
    )
    assert {k: v.shape for k, v in before.state_dict().items()} == {
        k: v.shape for k, v in after.state_dict().items()
    }
    facts = after.pruned_structure["recovered"]
    assert facts["after"] > facts["before"]
    assert len(facts["epochs"]) == 8
    assert after.pruned_structure["evaluation"] == before.pruned_structure["evaluation"]
    assert not (own_run / "recovered.safetensors.checkpoint").exists()

    (stored,) = read_best(own_run).recoveries
    assert (stored.of, stored.file) == ("pruned.safetensors", "recovered.safetensors")
    assert (stored.before, stored.after) == (facts["before"], facts["after"])
    assert stored.tensors == after.pruned_structure["tensors"]
    assert (stored.num_images, stored.watched, stored.labels) == (224, 512, False)
    assert stored.options["learning_rate"] == 0.0005
    change = f"outputs {stored.before:.5f} -> {stored.after:.5f}"
    assert f"pruned.safetensors -> recovered.safetensors: {change}\n" in report(own_run)
    page = write_page(own_run).read_text()
    assert change.replace(">", "&gt;") in page
    assert "Not recovered yet" not in page


def report(run):
    return (run / "report.txt").read_text()


def test_the_recovered_file_is_a_pruned_network_like_any_other(own_run, test_set, capsys):
    assert main(["recover", str(own_run), *FEW]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(own_run / "recovered.safetensors"), "--data", "CIFAR10"]) == 0
    assert "top-1" in capsys.readouterr().out
    again = ["recover", str(own_run / "recovered.safetensors"), *FEW, "--images", "random"]
    assert main(again) == 0
    first, second = read_recoveries(own_run, [first_tensors(own_run)])
    assert second.of_tensors == first.tensors
    assert second.file == "recovered_recovered.safetensors"
    assert read_recoveries(own_run, ["0" * 64]) == []

    assert main(["prune", "--resume", "--out", str(own_run)]) == 0  # ends with the same network
    assert read_best(own_run).recoveries == [first, second]
    assert report(own_run).count("pruned.safetensors -> recovered.safetensors: ") == 1


def first_tensors(run):
    return load_pruned(run / "pruned.safetensors").pruned_structure["tensors"]


def test_an_interruption_keeps_a_checkpoint_from_which_the_command_goes_on(
    own_run, tmp_path, monkeypatch, capsys
):
    whole = tmp_path / "whole.safetensors"
    assert main(["recover", str(own_run), *FEW, "--output", str(whole)]) == 0
    step = Training.step

    def stop(self):
        if self.done == 6:
            os.kill(os.getpid(), signal.SIGINT)  # the step is done, then the command stops
        return step(self)

    with monkeypatch.context() as patched:
        patched.setattr(Training, "step", stop)
        assert main(["recover", str(own_run), *FEW]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert (own_run / "recovered.safetensors.checkpoint").exists()
    assert main(["recover", str(own_run), *FEW, "--epochs", "9"]) != 0
    assert "epochs=8, not 9" in said(capsys)
    assert main(["recover", str(own_run), *FEW]) == 0
    assert torch.equal(weights(own_run / "recovered.safetensors"), weights(whole))


def test_bad_input_is_refused_before_anything_is_trained(own_run, tmp_path, capsys):
    assert main(["recover", str(tmp_path / "nowhere"), *FEW]) != 0
    assert "no run folder and no pruned network" in said(capsys)
    assert main(["recover", str(own_run), *FEW, "--labels"]) != 0
    assert "--labels needs a data set that has labels" in said(capsys)
    assert main(["recover", str(own_run), *FEW, "--output", str(tmp_path / "no" / "file")]) != 0
    assert "there is no folder" in said(capsys)
    (own_run / "recovered.safetensors").write_bytes(b"mine")
    assert main(["recover", str(own_run), *FEW]) != 0
    assert "exists: delete it" in said(capsys)
    assert (own_run / "recovered.safetensors").read_bytes() == b"mine"


@pytest.mark.data
def test_labels_of_a_data_set_are_learned(own_run, capsys):
    assert main(["recover", str(own_run), *FEW, "--images", "CIFAR10", "--labels"]) == 0
    assert "224 images from CIFAR10, with labels" in capsys.readouterr().out


def test_epochs_are_logged_to_tensorboard_and_wandb(own_run, monkeypatch):
    event_files = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert main(["recover", str(own_run), *FEW, "--wandb"]) == 0
    logs = own_run / "recovered.safetensors.logs"
    events = event_files.EventAccumulator(str(logs)).Reload()
    assert [event.step for event in events.Scalars("recovery/score")] == list(range(1, 9))
    assert list((logs / "wandb").glob("offline-run-*"))


def test_a_diverging_recovery_says_what_to_do_and_begins_anew(own_run, monkeypatch, capsys):
    def diverge(self):
        raise FloatingPointError("the loss is nan in step 1: give a lower learning_rate")

    monkeypatch.setattr(Training, "step", diverge)
    assert main(["recover", str(own_run), *FEW]) == 2
    assert "give a lower learning_rate, and begin anew" in said(capsys)
    assert not (own_run / "recovered.safetensors.checkpoint").exists()
