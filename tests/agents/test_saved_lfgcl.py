"""What the LFGCL agent saves: loaded it goes on, and other files are refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lfgcl_env.agents._lfgcl_arguments import Arguments
from lfgcl_env.agents.lfgcl import LFGCLAgent
from lfgcl_for_tests import QUICK, env_of, trained


@pytest.fixture(scope="module")
def env():
    return env_of()


def test_loaded_it_goes_on_as_if_it_had_not_stopped(env, tmp_path):
    straight, stopped = LFGCLAgent(env, 3, QUICK), LFGCLAgent(env, 3, QUICK)
    straight.learn(12)
    stopped.learn(7)
    stopped.save(tmp_path / "agent")
    again = LFGCLAgent.load(tmp_path / "agent", env)
    assert again.arguments == QUICK
    again.learn(5)
    for one, other in zip(straight.replay.arrays(), again.replay.arrays(), strict=True):
        np.testing.assert_array_equal(one, other)
    observation, _ = env.reset()
    np.testing.assert_array_equal(straight.predict(observation)[0], again.predict(observation)[0])


def test_trained_networks_transfer_to_another_number_of_groups(env, tmp_path):
    agent = trained(env)
    agent.save(tmp_path / "agent")
    other = env_of("resnet32")
    new = LFGCLAgent(other, 0, QUICK)
    observation, _ = other.reset()
    before = new.predict(observation)[0]
    new.set_parameters(tmp_path / "agent")
    assert len(new.replay) == 0
    assert np.abs(new.predict(observation)[0] - before).max() > 0.01


def test_another_agents_networks_spare_half_of_the_annealing_and_the_warm_up(env, tmp_path):
    trained(env).save(tmp_path / "agent")
    new = LFGCLAgent(env, 0, QUICK)
    new.set_parameters(tmp_path / "agent")
    new.learn(2)  # more than the first action, fewer than warm_up
    plain = LFGCLAgent(env, 0, replace(QUICK, head_start=0))
    plain.set_parameters(tmp_path / "agent")
    plain.learn(2)
    first, second = (agent.replay.arrays()[1] for agent in (new, plain))
    np.testing.assert_array_equal(first[0], second[0])
    assert (first[1] != second[1]).any()


def test_other_files_and_other_sizes_are_refused(env, tmp_path):
    agent = LFGCLAgent(env, 0, QUICK)
    (tmp_path / "text").write_text("no agent")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "foreign")
    for name in ("text", "foreign"):
        with pytest.raises(ValueError, match="not a file of the agent 'lfgcl'"):
            agent.set_parameters(tmp_path / name)
        with pytest.raises(ValueError, match="not a file of the agent 'lfgcl'"):
            LFGCLAgent.load(tmp_path / name, env)
    with pytest.raises(FileNotFoundError):
        agent.set_parameters(tmp_path / "missing")
    agent.save(tmp_path / "agent")
    with pytest.raises(ValueError, match="size mismatch"):
        LFGCLAgent(env, 0, Arguments(hidden=8)).set_parameters(tmp_path / "agent")


def test_a_replay_of_another_network_is_refused(env, tmp_path):
    trained(env, 2).save(tmp_path / "agent")
    with pytest.raises(ValueError, match="of another network"):
        LFGCLAgent.load(tmp_path / "agent", env_of("resnet32"))


def test_every_flipped_bit_of_a_saved_agent_is_noticed(env, tmp_path):
    trained(env, 4).save(tmp_path / "agent")
    whole = (tmp_path / "agent").read_bytes()
    agent = LFGCLAgent(env, 0, QUICK)
    before = agent.networks.state_dict()["actor.first.weight"].clone()
    draws = np.random.default_rng(0)
    refused = 0
    for place in draws.integers(len(whole), size=100):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(draws.integers(8))
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            LFGCLAgent.load(tmp_path / "damaged", env)
        except ValueError:
            refused += 1
        else:  # a bit that means nothing, such as a date or padding
            same = torch.load(tmp_path / "damaged", weights_only=True)
            right = torch.load(tmp_path / "agent", weights_only=True)
            assert repr(same) == repr(right)
    assert refused > 80
    torch.testing.assert_close(agent.networks.state_dict()["actor.first.weight"], before)


@pytest.mark.parametrize(
    ("name", "value"),
    [("hidden", 10**9), ("hidden", -1), ("noise", "loud"), ("actor", 1), ("unheard_of", 1)],
)
def test_arguments_in_a_file_are_checked(env, tmp_path, name, value):
    agent = LFGCLAgent(env, 0, QUICK)
    agent.save(tmp_path / "agent")
    saved = torch.load(tmp_path / "agent", weights_only=True)
    saved["arguments"][name] = value
    torch.save(saved, tmp_path / "agent")
    with pytest.raises(ValueError, match="not a file of the agent 'lfgcl'"):
        LFGCLAgent.load(tmp_path / "agent", env)


def test_tensors_that_are_larger_than_the_file_or_not_finite_are_refused(env, tmp_path):
    agent = LFGCLAgent(env, 0, QUICK)
    agent.save(tmp_path / "agent")
    saved = torch.load(tmp_path / "agent", weights_only=True)
    for wrong in (torch.zeros(1).expand(10**9), torch.tensor([np.nan])):
        torch.save(saved | {"replay": [wrong, wrong, wrong]}, tmp_path / "wrong")
        with pytest.raises(ValueError, match="not contiguous and finite"):
            LFGCLAgent.load(tmp_path / "wrong", env)


def test_an_empty_replay_is_saved_and_loaded_too(env, tmp_path):
    LFGCLAgent(env, 0, QUICK).save(tmp_path / "agent")
    assert len(LFGCLAgent.load(tmp_path / "agent", env).replay) == 0
