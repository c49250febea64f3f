"""Networks that take several tensors, by place or by name, are pruned like those that take one."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from networks_for_tests import drawn, hidden, simple_problem
from torch import Tensor, nn
from unusual_networks import noise

import lfgcl_env
from lfgcl_env import PruningProblem
from lfgcl_env.networks.several_inputs import Packing
from lfgcl_env.pruning import read_structure
from lfgcl_env.pruning.structure.layers import count_macs
from lfgcl_env.search.run_search import run_search

COUNT = 24


class Captioned(nn.Module):
    """A picture, part of which may be masked, and a few words; gives two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU()),
            *(nn.Conv2d(12, 10, 3, padding=1), nn.ReLU()),
        )
        self.words = nn.Embedding(7, 6)
        self.mixed = nn.Linear(6, 8)
        self.classes, self.place = nn.Linear(18, 5), nn.Linear(18, 2)

    def forward(
        self, pixels: Tensor, words: Tensor, *, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        x = self.stem(pixels)
        if mask is not None:
            x = x * mask[:, None]
        read = self.mixed(self.words(words).mean(1)).relu()
        joined = torch.cat([x.mean((2, 3)), read], 1)
        return self.classes(joined), self.place(joined)


def captioned() -> nn.Module:
    torch.manual_seed(0)
    return Captioned().eval()


def named(count: int = COUNT, seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "pixels": noise(count, 3, 10, 10, seed=seed),
        "mask": torch.rand(count, 10, 10, generator=draw) > 0.3,
        "words": torch.randint(0, 7, (count, 4), generator=draw),
    }


def placed(count: int = COUNT, seed: int = 0) -> tuple[Tensor, Tensor]:
    inputs = named(count, seed)
    return inputs["pixels"], inputs["words"]


def called(network: nn.Module, inputs: dict[str, Tensor] | tuple[Tensor, ...]) -> list[Tensor]:
    with torch.no_grad():
        return list(network(**inputs) if isinstance(inputs, dict) else network(*inputs))


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


@pytest.mark.parametrize("given", [named, placed])
def test_a_cut_network_takes_the_same_inputs_and_gives_what_hiding_gives(given):
    network = captioned()
    problem = simple_problem(network, given(), budget=1.0)
    assert [group.name for group in problem.groups] == ["stem.0", "stem.3", "mixed"]
    keep = np.array([5, 4, 3])
    kept = drawn(problem.network, keep)
    cut = problem.network.cut(kept)
    packed = problem.baseline.packing.pack(given(5, seed=3))
    expected = hidden(problem.network, kept, packed)
    with torch.no_grad():
        outputs = cut(packed)
    for mine, theirs in zip(outputs, expected, strict=True):
        assert float((mine - theirs).abs().max()) < 1e-5
    compressed = problem.compress(keep)
    whole = called(problem.compress(problem.channels), given())
    assert equal(whole, called(network, given()))
    assert called(compressed, given())[0].shape == (COUNT, 5)
    assert problem.cost(keep).macs == count_macs(cut, packed)
    assert problem.cost(keep).params == sum(p.numel() for p in compressed.parameters())


def test_the_module_that_was_given_is_not_changed():
    network = captioned()
    before = copy.deepcopy(network.state_dict())
    problem = PruningProblem(network, named(), budget=0.6)
    problem.evaluate(problem.project([0.5] * 3))
    assert equal(list(before.values()), list(network.state_dict().values()))
    assert "forward" not in vars(network)


@pytest.mark.parametrize("repair", ["none", "least_squares", "batchnorm", "sequential"])
@pytest.mark.parametrize("given", [named, placed])
def test_every_repair_and_the_delivery_work(given, repair):
    problem = PruningProblem(captioned(), given(), budget=0.6, repair=repair)
    keep = problem.project([0.5] * 3)
    evaluation = problem.evaluate(keep)
    assert 0 < evaluation.similarity < 1
    compressed = problem.compress(keep)
    assert problem.score_network(compressed, keep) == pytest.approx(evaluation.similarity, abs=1e-5)
    delivered, finished = problem.finish(keep, given(seed=1))
    assert finished.similarity > 0
    assert 0 < problem.judge(given(seed=2))(delivered) <= 1
    assert "forward" not in vars(delivered)
    assert called(delivered, given())[0].shape == (COUNT, 5)


def test_a_delivered_network_comes_back_and_the_file_says_what_it_takes(tmp_path):
    problem = PruningProblem(captioned(), named(), budget=0.6)
    keep = problem.project([0.5] * 3)
    delivered, _ = problem.finish(keep, named(seed=1))
    path = problem.save(tmp_path / "pruned", keep, delivered)
    loaded = lfgcl_env.load_pruned(path, Captioned)
    assert equal(called(loaded, named()), called(delivered, named()))
    structure = read_structure(path)
    assert structure["input_shape"] is None
    assert structure["inputs"][0] == {"name": "pixels", "shape": [3, 10, 10], "dtype": "float32"}
    assert [one["dtype"] for one in structure["inputs"][1:]] == ["bool", "int64"]


@pytest.mark.parametrize("env_id", ["LFGCL-v0", "AMC-v0"])
@pytest.mark.parametrize("given", [named, placed])
def test_environments_take_several_inputs(given, env_id):
    env = gym.make(
        env_id,
        network=captioned(),
        images=given(),
        num_images=16,
        budget=0.7,
        reward="similarity",
    )
    env.reset(seed=0)
    ended = False
    while not ended:
        action = np.full(env.action_space.shape, 0.5, np.float32)
        _, reward, ended, _, info = env.step(action)
    assert 0 < reward < 1
    pruned = env.unwrapped.problem.compress(info["keep"])
    assert env.unwrapped.score(pruned, info["keep"]) == pytest.approx(reward, abs=1e-5)
    assert 0 < env.unwrapped.judge(pruned, info["keep"]) <= 1


def test_a_search_delivers_a_network_that_takes_them(tmp_path):
    env = gym.make("LFGCL-v0", network=captioned(), images=named(), num_images=16, budget=0.7)
    result = run_search(env, agent="random", evaluations=3, shortlist=1, out=tmp_path / "run")
    assert result.best is not None
    loaded = lfgcl_env.load_pruned(tmp_path / "run/pruned.safetensors", Captioned)
    assert called(loaded, named())[0].shape == (COUNT, 5)
    assert "stem.0" in (tmp_path / "run/report.txt").read_text()


@pytest.mark.parametrize("given", [named, placed])
def test_a_reward_of_ones_own_gets_the_inputs_as_they_were_given(given):
    seen = []

    def reward(network, images):
        seen.append(images)
        return float(called(network, images)[0].std())

    env = gym.make(
        "LFGCL-v0", network=captioned(), images=given(), num_images=None, budget=0.7, reward=reward
    )
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert type(seen[0]) is type(given())
    values = (dict.values if given is named else tuple)(given())
    mine = (dict.values if given is named else tuple)(seen[0])
    assert equal(list(mine), list(values))
    assert [one.dtype for one in mine] == [one.dtype for one in values]


def test_noise_becomes_whole_numbers_that_were_seen():
    packing = Packing.of({"words": torch.tensor([[2], [5]]), "on": torch.tensor([True, False])})
    rows = torch.tensor([[-3.0, 9.0], [99.0, -1.0], [3.4, 0.2], [torch.nan, torch.nan]])
    _, names = packing.unpack(rows)
    assert names["words"].flatten().tolist() == [2, 5, 3, 2]
    assert names["on"].tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        ((), "at least one input is needed, got none"),
        ((torch.zeros(4, 3), torch.zeros(5, 3)), r"one entry for every image .* \(4, 3\), \(5, 3"),
        (
            (torch.zeros(4, 3), "mask"),
            "in a tuple or dictionary must be tensors or arrays, got 'mask'",
        ),
        ((torch.zeros(4, 3), torch.zeros(4).byte()), "of type torch.uint8: give floating-point"),
        ({"x": torch.full((4, 3), torch.nan)}, "input 'x' holds NaN or infinite values"),
        ({"x": torch.full((4, 3), 2**30)}, "input 'x' has whole numbers beyond 16,777,216"),
        ({"no name": torch.zeros(4, 3)}, "named by a network's arguments, got 'no name'"),
        ({"depth": torch.zeros(4, 3)}, r"Captioned does not take the inputs \(depth: \(3,\)\)"),
        (placed()[:1], r"Captioned does not take the inputs \(0: \(3, 10, 10\)\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs, complaint):
    for make in (
        lambda: PruningProblem(captioned(), inputs),
        lambda: gym.make("LFGCL-v0", network=captioned(), images=inputs, num_images=None),
    ):
        with pytest.raises(ValueError, match=complaint) as refused:
            make()
        assert "\n" not in str(refused.value)


def test_other_inputs_for_a_delivery_are_refused():
    problem = PruningProblem(captioned(), named(), budget=0.7)
    keep = problem.project([0.5] * 3)
    with pytest.raises(ValueError, match=r"takes inputs \(pixels: .*, got \(0: \(3, 10, 10\), 1:"):
        problem.finish(keep, placed())
    with pytest.raises(ValueError, match=r"takes several inputs .* got a tensor of shape"):
        problem.finish(keep, named()["pixels"])
    one = simple_problem(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), noise(8, 4))
    with pytest.raises(ValueError, match="was loaded to take one tensor, got 2 inputs"):
        one.finish([3], placed())


def weighed(network: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """A reward of one's own, which likes what no repair has changed."""
    with torch.no_grad():
        network(*inputs)
    own = dict(captioned().named_parameters())
    return -float((network.classes.bias - own["classes.bias"]).abs().sum())


def test_a_network_that_is_merely_cut_takes_its_inputs_as_the_user_gives_them():
    problem = simple_problem(captioned(), placed(), budget=0.6)
    keep = problem.project(np.full(len(problem.groups), 0.5))
    (harmed,) = problem.repair_all([keep], placed(seed=1))
    with torch.no_grad():
        harmed.stem[3].weight.mul_(-30)
    best = problem.keep_better(harmed, keep)
    assert best.delivery == "cut"
    assert len(called(best.network, placed(2))) == 2
    score = problem.score_network(best.network, keep)
    assert best.evaluation.similarity == pytest.approx(score)


@pytest.mark.parametrize("shortlist", [0, 2])
def test_an_own_reward_decides_what_is_handed_over(tmp_path, caplog, shortlist):
    env = gym.make(
        "LFGCL-v0", network=captioned(), images=placed(), num_images=None, reward=weighed
    )
    run_search(env, "random", 3, out=tmp_path, shortlist=shortlist)
    assert "repair made the network worse" in caplog.text
    network = lfgcl_env.load_pruned(tmp_path / "pruned.safetensors", captioned())
    assert weighed(network, placed(2)) == 0.0
