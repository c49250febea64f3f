"""Arguments of the environments: declared once, listed everywhere, and checked."""

import copy
import inspect
import string
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks_for_tests import awaken, images, plain

from lfgcl_env.config import (
    EnvConfig,
    GlobalConfig,
    LayerwiseConfig,
    ProblemConfig,
    complete,
    options,
    part,
    table,
)
from lfgcl_env.engine import ray_connection
from lfgcl_env.envs import AMCEnv, LFGCLEnv
from lfgcl_env.pruning.registries import CHOICES

KINDS = [(LFGCLEnv, GlobalConfig), (AMCEnv, LayerwiseConfig)]


@cache
def network() -> torch.nn.Module:
    return awaken(plain())


@cache
def cheap(kind: type) -> dict[str, Any]:
    """Arguments with which an environment is made in milliseconds."""
    return {"network": network(), "images": images(4), "num_images": None, "criterion": "l1",
            "repair": "none", "reward": "similarity", "budget": 0.9}  # fmt: skip


@pytest.mark.parametrize(("env", "kind"), KINDS)
def test_signature_and_help_list_every_argument_with_its_default(env, kind):
    parameters = inspect.signature(env).parameters
    assert {name: p.default for name, p in parameters.items()} == {
        name: option.default for name, option in options(kind).items()
    }
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters.values())
    page = inspect.getdoc(env)
    assert "{arguments}" not in page
    for name in options(kind):
        assert f"\n| `{name}` |" in page
    for choices in CHOICES.values():
        assert all(f"`{choice}`" in page for choice in choices)


@pytest.mark.parametrize(("env", "kind"), KINDS)
def test_a_subclass_has_a_signature_of_its_own(env, kind):
    class Own(env):
        def __init__(self, width: int) -> None:
            super().__init__(**cheap(env))

    assert list(inspect.signature(Own).parameters) == ["width"]
    assert Own(width=3).problem.groups


def test_the_configs_build_upon_each_other():
    names = [list(options(kind)) for kind in (ProblemConfig, EnvConfig)]
    for kind in (GlobalConfig, LayerwiseConfig):
        assert list(options(kind))[: len(names[1])] == names[1]
    assert names[1][: len(names[0])] == names[0]
    given = {"budget": 0.3, "seed": 4, "images": "random", "horizon": 2}
    assert part(ProblemConfig, complete(GlobalConfig, given, "it")) == (
        complete(ProblemConfig, {"budget": 0.3, "seed": 4}, "it")
    )


def test_the_table_holds_the_arguments_that_are_wanted_and_their_choices():
    assert table(ProblemConfig, only=["round_to", "repair"], choices={"repair": ["a", "b"]}) == (
        "| argument | default | meaning |\n"
        "|---|---|---|\n"
        "| `round_to` | `1` | kept counts are multiples of it, or the whole group; by patterns of "
        "layers too, the first match counts, as in `{'layer1.*': 4, '*': 8}` [channels] |\n"
        "| `repair` | `'least_squares'` | how a pruned network is repaired before it is scored; "
        "LFGCL ids of a network have 'sequential': `a`, `b` |"
    )


def test_numpys_scalars_and_paths_are_taken_as_pythons(tmp_path):
    chosen = complete(EnvConfig, {"seed": np.int64(3), "budget": np.float32(0.5),
                                  "data_root": tmp_path, "images": tmp_path}, "it")  # fmt: skip
    assert (chosen["seed"], chosen["budget"]) == (3, 0.5)
    assert type(chosen["seed"]) is int
    assert chosen["data_root"] == chosen["images"] == str(tmp_path)


def test_a_dictionary_that_is_given_is_not_changed():
    arguments = {"num_classes": 7}
    given = {"network": "resnet20", "weights": "random", "images": "random", "num_images": 4,
             "criterion": "l1", "repair": "none", "network_arguments": arguments}  # fmt: skip
    before = copy.deepcopy(given)
    env = LFGCLEnv(**given)
    assert env.problem.baseline.num_classes == 7
    assert given == before


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"seed": -1}, "seed must be a whole number from 0 to 4,294,967,295, got -1"),
        ({"seed": "0"}, "seed must be a whole number"),
        ({"seed": 2**64}, "seed must be a whole number"),
        ({"device": 3}, "device must be a name, got 3"),
        ({"device": "gpu"}, "device 'gpu' cannot be used"),
        ({"device": "meta"}, "device 'meta' cannot be used"),
        ({"images": ["a.png"]}, "images in a tuple or dictionary must be tensors or arrays"),
        ({"images": np.zeros((4, 3, 32, 32), object)}, "neither uint8 pixels nor floating-point"),
        ({"images": torch.zeros(4, 3, 32, 32).to_sparse()}, "give a dense tensor"),
        ({"images": "~nobody/images"}, "unknown images '~nobody/images'"),
        ({"images": "x" * 5000}, "unknown images"),
        ({"images": "random", "num_images": 10**6, "input_shape": (3, 512, 512)}, "input|memory"),
        ({"images": "random", "num_score_images": 10**6}, "do not fit into memory: at most"),
        ({"num_score_images": 1}, "at least 2 score images are needed, got 1"),
        ({"num_score_images": 10**6}, "1000000 views of shape .* do not fit into memory"),
        ({"features": 3}, "features must be names of modules, or None"),
        ({"features": {"0": 1}}, "features must be names of modules, or None"),
        ({"network_arguments": [1]}, "network_arguments must be a dictionary, or None"),
        ({"normalization": 0.5}, r"normalization must be a pair \(mean, std\)"),
        ({"normalization": (("a",), (1,))}, r"normalization must be a pair \(mean, std\)"),
        ({"input_shape": (3, 32)}, "does not take inputs of shape"),
        ({"input_shape": (3, 32, True)}, "input_shape must be"),
        ({"input_shape": (3, 10**6, 10**6)}, "with a product of at most 16,777,216"),
        ({"download": "yes"}, "download must be True or False, got 'yes'"),
        ({"network": None}, "network must be a name, a torch.nn.Module, or a function"),
        ({"render_mode": 3}, "render_mode must be a name, or None, got 3"),
        ({"labelled": images(4)}, "labelled must be lfgcl_env.images.LabelledImages, or None"),
        ({"num_labelled": 0}, "num_labelled must be a whole number from 1 to 1,000,000, got 0"),
        ({"reward": 0.5}, "reward must be a name or a function, got 0.5"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("env", [LFGCLEnv, AMCEnv])
def test_wrong_types_and_values_are_refused_in_one_sentence(env, arguments, complaint):
    with pytest.raises(ValueError, match=complaint) as refused:
        env(**(cheap(env) | arguments))
    assert "\n" not in str(refused.value)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 1, 2, 3, 2**31, 2**63, 2**64, 10**400]),
    st.floats(),
    st.text(max_size=8),
    st.text(string.printable, max_size=8),
    st.binary(max_size=4),
    st.complex_numbers(),
    st.lists(st.one_of(st.integers(-2, 40), st.floats(-1, 2), st.text(max_size=3)), max_size=4),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.builds(object),
    st.sampled_from([
        np.float32(0.5), np.int64(2), np.zeros(2), np.zeros((4, 3, 32, 32), complex), int,
        torch.zeros(()), torch.randn(4, 3, 32, 32), np.zeros((4, 3, 32, 32), np.longdouble), print,
        lambda: 3,
        images(4).to_sparse(), images(4).to("meta"), np.zeros((4, 3, 32, 32), np.uint8), range(3),
    ]),
)  # fmt: skip
WORDS = ("similarity", "accuracy", "random", "embedded", "published", "given", "CIFAR11", "human",
         "inner", "all", "l1", "kl", "batchnorm", "params", "cuda:99", "math:pi", ":",
         "torchvision:", "torchvision:nothing", "~nobody", "\0", ".", "")  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _no_cluster():
    """Any values may be those of a cluster, which would start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_connection, "connect", lambda *_: None)
        yield


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("env", "kind"), KINDS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_values_make_an_env_or_one_sentence(env, kind, data):
    names = data.draw(st.lists(st.sampled_from(sorted(options(kind))), min_size=1, max_size=3))
    given = {name: data.draw(JUNK | st.sampled_from(WORDS), label=name) for name in names}
    given["download"] = False if given.get("download") is True else given.get("download", False)
    try:
        env(**(cheap(env) | given))
    except (ValueError, FileNotFoundError, ImportError) as error:
        assert "\n" not in str(error)  # noqa: PT017 (success is accepted, too)


@pytest.mark.parametrize(("env", "kind"), KINDS)
@settings(max_examples=100, deadline=None)
@given(options=JUNK, budget=JUNK, seed=JUNK, action=JUNK)
def test_any_options_seeds_and_actions_are_taken_or_refused_in_one_sentence(
    env, kind, options, budget, seed, action
):
    made = shared(env)
    for call in (
        lambda: made.reset(options=options),
        lambda: made.reset(options={"budget": budget}),
        lambda: made.reset(seed=seed),
        lambda: made.step(action),
    ):
        made.reset()
        try:
            call()
        except ValueError as error:
            assert "\n" not in str(error)  # noqa: PT017


@cache
def shared(env: type) -> Any:
    return env(**cheap(env))
