"""A pruned network becomes better by its baseline's outputs, whatever happens on the way."""

import math
from dataclasses import replace

import pytest
import torch
from networks_for_tests import awaken, images, plain, simple_problem
from torch import nn
from unusual_networks import segmenting

from lfgcl_env.recovery import RecoveryOptions, recover, with_labels
from lfgcl_env.recovery.distilling import Training
from lfgcl_env.recovery.loss import Distillation

FEW = RecoveryOptions(epochs=3, epoch_images=64, batch_size=16, learning_rate=0.02, ema=0.9)
TRAIN, WATCHED = images(64, 16, seed=1), images(64, 16, seed=2)


def pruned(network=None, **arguments):
    problem = simple_problem(awaken(network or plain()), images(16, 16), **arguments)
    return problem, problem.compress(problem.channels // 2)


def recovered(problem, network, **arguments):
    given = {"options": FEW, "watched": WATCHED} | arguments
    return problem.recover(network, TRAIN, given.pop("options"), **given)


def weights(network):
    return torch.cat([tensor.flatten().float() for tensor in network.state_dict().values()])


@pytest.mark.parametrize("make", [plain, segmenting])
def test_outputs_come_nearer_to_the_baselines(make):
    problem, network = pruned(make())
    before = weights(network).clone()
    done = recovered(problem, network, options=replace(FEW, epochs=6, learning_rate=0.005))
    judge = problem.judge(WATCHED)
    assert done.better
    assert judge(done.network) == pytest.approx(done.after)
    assert done.before == pytest.approx(judge(network))
    assert done.after > done.before
    assert torch.equal(weights(network), before)
    assert weights(done.network).shape == before.shape


def test_outputs_without_classes_are_learned():
    network = nn.Sequential(nn.Flatten(), nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 1))
    problem = simple_problem(awaken_rows(network), torch.randn(16, 20))
    smaller = problem.compress([8])
    done = problem.recover(smaller, torch.randn(256, 20), FEW)
    assert done.mapped is None
    assert done.after > done.before


def awaken_rows(network):
    torch.manual_seed(0)
    for module in network:
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    return network.eval()


def test_what_does_not_become_better_is_handed_back():
    problem, network = pruned()
    scores = iter([1.0, 0.5, 0.9, 1.0])
    done = recover(problem.baseline.network, network, TRAIN, lambda one: next(scores), FEW)
    assert not done.better
    assert torch.equal(weights(done.network), weights(network))


class Stopped(Exception):
    pass


@pytest.mark.parametrize(("error", "at"), [(KeyboardInterrupt, 6), (Stopped, 6)])
def test_an_interrupted_recovery_goes_on_to_the_same_network(tmp_path, error, at):
    problem, network = pruned()
    whole = recovered(problem, network)
    file = tmp_path / "state.checkpoint"

    def stop(now):
        if now.step == at:
            raise error

    with pytest.raises(error):
        recovered(problem, network, checkpoint=file, progress=stop)
    steps = []
    again = recovered(
        problem, network, checkpoint=file, progress=lambda now: steps.append(now.step)
    )
    assert steps[0] == 7
    assert torch.equal(weights(again.network), weights(whole.network))
    assert again.epochs == whole.epochs


@pytest.mark.parametrize(
    ("owner", "method"),
    [(Distillation, "__call__"), (torch.Tensor, "backward"), (torch.optim.SGD, "step"),
     (Training, "network")],
)  # fmt: skip
def test_what_is_interrupted_inside_a_step_or_a_score_begins_it_again(
    tmp_path, monkeypatch, owner, method
):
    problem, network = pruned()
    options = replace(FEW, epochs=8)
    whole = recovered(problem, network, options=options)
    file = tmp_path / "state.checkpoint"
    act, calls = getattr(owner, method), []

    def stop(*given, **named):
        result = act(*given, **named)
        calls.append(method)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patched:
        patched.setattr(owner, method, stop)
        with pytest.raises(KeyboardInterrupt):
            recovered(problem, network, checkpoint=file, options=options)
    again = recovered(problem, network, checkpoint=file, options=options)
    assert torch.equal(weights(again.network), weights(whole.network))
    assert again.epochs == whole.epochs
    assert again.after == whole.after


def test_a_checkpoint_that_cannot_be_written_is_found_out_before_training(tmp_path):
    problem, network = pruned()
    steps = []
    with pytest.raises(OSError, match="nowhere"):
        recovered(problem, network, checkpoint=tmp_path / "nowhere" / "x", progress=steps.append)
    assert not steps


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    problem, network = pruned()
    file = tmp_path / "state.checkpoint"
    recovered(problem, network, checkpoint=file)
    with pytest.raises(ValueError, match="epochs=3, not 4"):
        recovered(
            problem,
            network,
            checkpoint=file,
            options=replace(FEW, epochs=4),
        )
    with pytest.raises(ValueError, match="another network or other images"):
        problem.recover(network, TRAIN + 1, FEW, watched=WATCHED, checkpoint=file)
    other = pruned(plain())[0].baseline.network
    with torch.no_grad():
        next(other.parameters()).add_(1)
    with pytest.raises(ValueError, match="another network or other images"):
        recover(other, network, TRAIN, lambda _: 0.0, FEW, checkpoint=file)
    torch.save(3, tmp_path / "three")
    file.write_bytes(b"nothing")
    for damaged in (file, tmp_path / "three"):
        with pytest.raises(ValueError, match="no checkpoint of a recovery"):
            recovered(problem, network, checkpoint=damaged)


def test_labels_are_learned_where_they_are_given():
    problem, network = pruned()
    with torch.no_grad():
        labels = (problem.baseline.network(TRAIN).argmax(1) + 1) % 3
    options = RecoveryOptions(
        epochs=30, epoch_images=64, batch_size=16, learning_rate=0.05, ema=0.5, flip=False, crop=0
    )

    def right(one):
        with torch.no_grad():
            return float((one(TRAIN).argmax(1) == labels).float().mean())

    done = recover(problem.baseline.network, network, TRAIN, right, options, labels=labels)
    assert done.after > max(0.6, done.before + 0.2)
    with pytest.raises(ValueError, match="labels need watched"):
        problem.recover(network, TRAIN, FEW, labels=labels)
    with pytest.raises(ValueError, match="10 labels were given for 64 images"):
        recover(problem.baseline.network, network, TRAIN, right, FEW, labels=labels[:10])


def test_the_recipe_with_labels_lowers_its_rate_in_steps_and_averages_nothing():
    problem, network = pruned()
    options = with_labels(epochs=10, epoch_images=64, batch_size=64, seed=3)
    assert (options.learning_rate, options.mixup, options.seed) == (0.01, 0, 3)
    baseline = problem.baseline.network
    training = Training(
        baseline, network, TRAIN, options, torch.device("cpu"), torch.zeros(64, dtype=torch.int64)
    )
    rates = []
    for _ in range(training.steps):
        training.step()
        rates.append(training._optimizer.param_groups[0]["lr"])
        both = zip(training.network().parameters(), training._network.parameters(), strict=True)
        assert all(torch.equal(*pair) for pair in both)
    assert rates == pytest.approx([0.01] * 6 + [0.001] * 2 + [0.0001] * 2)


def test_frozen_parameters_stay(tmp_path):
    problem, network = pruned()
    network[0].weight.requires_grad_(False)
    before = network[0].weight.clone()
    done = recovered(problem, network)
    assert torch.equal(done.network[0].weight, before)
    assert [n for n, p in done.network.named_parameters() if not p.requires_grad] == ["0.weight"]


def test_a_diverging_recovery_says_what_to_do():
    problem, network = pruned()
    with torch.no_grad():
        network[-1].fc.weight.fill_(math.inf)
    with pytest.raises(FloatingPointError, match="give a lower learning_rate"):
        recovered(
            problem,
            network,
            options=RecoveryOptions(epochs=30, epoch_images=64, batch_size=16, learning_rate=10),
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("batch_size", 1), ("learning_rate", 0), ("mixup", 0.6), ("schedule", "step"),
     ("learning_rate", math.nan), ("precision", "fp8"), ("ema", -0.1)],
)  # fmt: skip
def test_options_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        RecoveryOptions(**{name: value})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_recovers_too():
    problem, network = pruned()
    done = recovered(
        problem,
        network,
        device="cuda",
        options=replace(FEW, precision="bf16"),
    )
    assert done.after > done.before
    assert next(done.network.parameters()).device.type == "cpu"


def test_a_score_of_ones_own_that_dislikes_what_training_does_keeps_the_network():
    problem, network = pruned()
    before, seen = weights(network).clone(), []

    def stay(one, batch):
        seen.append(batch.clone())
        batch.zero_()  # a careless function changes nobody's images but its own
        return -float((weights(one) - before).square().sum())

    done = recovered(problem, network, score=stay)
    assert not done.better
    assert done.before == 0.0
    assert done.after < 0
    assert torch.equal(weights(done.network), before)
    assert torch.equal(seen[0], WATCHED)
    assert recovered(problem, network).better  # by outputs, the same training helps


def test_a_score_of_ones_own_decides_although_outputs_become_worse():
    problem, network = pruned()
    before = weights(network).clone()
    wild = replace(FEW, learning_rate=3.0, epochs=1, ema=0.0)

    def away(one, _):
        return float((weights(one) - before).square().sum())

    assert recovered(problem, network, options=wild, score=away).better
    assert not recovered(problem, network, options=wild).better


def test_a_score_that_is_no_number_is_named():
    problem, network = pruned()
    with pytest.raises(ValueError, match=r"reward '.*<lambda>' must return a finite number"):
        recovered(problem, network, score=lambda *_: float("nan"))
