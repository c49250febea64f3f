"""Pages of runs on objects of one's own: they promise nothing that fails."""

import json
import re
from types import SimpleNamespace

import gymnasium as gym
import pytest
import torch
from torch import nn

from lfgcl_env.edge.sealed import sealed
from lfgcl_env.page import write_page
from lfgcl_env.page.networks_found import latency, use
from lfgcl_env.page.sections import _CIRCLES, _thinned
from lfgcl_env.runs.best import read_best
from lfgcl_env.runs.commands import resume_command
from lfgcl_env.runs.problem_file import PROBLEM, has_problem, write_problem
from lfgcl_env.search.run_search import run_search


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    ).eval()  # fmt: skip


def mean_score(network, images):
    return float(network(images).mean())


def make_env(**options):
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return gym.make("LFGCL-v0", network=network(), images=images, num_images=None, **options)


@pytest.fixture
def run(tmp_path):
    run_search(make_env(), "random", 2, out=tmp_path / "run")
    return tmp_path / "run"


def text_of(run, **options):
    return write_page(run, **options).read_text(encoding="utf-8")


def edit(path, change):
    facts = json.loads(path.read_text())
    del facts["checksum"]
    change(facts)
    path.write_text(sealed(facts))


def test_a_network_that_was_a_module_has_a_snippet_but_no_commands(run):
    text = text_of(run)
    assert "pruned.safetensors&#x27;, YOUR_NETWORK)" in text
    for command in ("lfgcl measure", "lfgcl evaluate", "lfgcl export", "lfgcl recover"):
        assert command not in text


def test_a_run_on_objects_is_not_told_to_go_on_by_command(run):
    edit(run / "arguments.json", lambda facts: facts["arguments"].update(evaluations=9))
    text = text_of(run)
    assert "It goes on from Python." in text
    assert "--resume" not in text


@pytest.mark.parametrize(
    ("asked", "command"),
    [
        ({}, "lfgcl prune --resume --out run"),
        ({"network": "my:build"}, "lfgcl prune my:build --resume --out run"),
        (
            {"environment": "AMC-v0", "network": "my:build"},
            "lfgcl prune --resume --out run --trust",
        ),
        ({"agent": "my:Hill"}, "lfgcl prune --resume --out run --agent my:Hill"),
        ({"reward": "my:score"}, "lfgcl prune --resume --out run --reward my:score"),
        ({"network": "Sequential"}, None),
        ({"reward": "function"}, None),
        ({"agent": "__main__:Hill"}, None),
        ({"images": "Tensor"}, None),
    ],
)
def test_the_command_that_goes_on_names_code_again(asked, command):
    usual = {"environment": "LFGCL-v0", "network": "resnet20", "agent": "random"}
    assert resume_command("run", usual | asked) == command


def facts(tmp_path, **header):
    header = {"network": "my.models:build", "arguments": {}} | header
    options = None if header.get("inputs") else " --network my.models:build"
    return SimpleNamespace(
        networks=(tmp_path / "pruned.safetensors",), header=header, options=options,
        folder=tmp_path, sweep=None, measured=None,
    )  # fmt: skip


def test_code_of_ones_own_is_imported_and_called_with_its_arguments(tmp_path):
    text = use(facts(tmp_path, arguments={"width": 8}))
    assert "from my.models import build" in text
    assert "build(**{&#x27;width&#x27;: 8})" in text
    assert "--network my.models:build" in text
    assert "pruned.safetensors&#x27;, build)" in use(facts(tmp_path))


def test_several_inputs_have_no_commands(tmp_path):
    several = facts(tmp_path, inputs=[{"name": None, "shape": [3], "dtype": "float32"}])
    assert "lfgcl export" not in use(several)
    assert latency(several) == ""


def test_a_reward_of_ones_own_is_called_by_its_name(tmp_path):
    env = make_env(reward=mean_score)
    run_search(env, "random", 2, out=tmp_path / "run", shortlist=2)
    text = text_of(tmp_path / "run")
    assert "compared by the reward, " in text
    assert "mean_score" in text
    assert "similarity of outputs" not in text


def test_the_shortlist_is_shown_with_rewards_and_scores_as_repaired(tmp_path):
    run_search(make_env(), "random", 3, out=tmp_path / "run", shortlist=2)
    shortlist = read_best(tmp_path / "run").shortlist
    assert len(shortlist) == 2
    _, _, section = text_of(tmp_path / "run").partition("<h2>Shortlist</h2>")
    section, _, _ = section.partition("</section>")
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in section.split("<tr>")]
    assert [row for row in rows if row] == [
        [
            str(place),
            one.origin,
            f"{one.searched.macs_ratio:.1%}",
            f"{one.searched.params_ratio:.1%}",
            f"{one.reward:.4f}",
            f"{one.score:.4f}",
        ]
        for place, one in enumerate(shortlist, start=1)
    ]
    assert "<h2>Shortlist</h2>" not in text_of_search_alone(tmp_path)


def text_of_search_alone(folder):
    run_search(make_env(), "random", 1, out=folder / "alone")
    text = text_of(folder / "alone")
    assert re.search(r"Rewards of 1 strategy in [\d.]+ seconds", text)
    return text


@pytest.mark.parametrize("value", ["best", None, 1, ["cut"]])
def test_an_unknown_delivery_is_refused(value, run):
    edit(run / "best.json", lambda facts: facts.update(delivery=value))
    with pytest.raises(ValueError, match=r"best\.json is damaged: .*delivery.*'thorough', 'quick'"):
        read_best(run)
    edit(run / "best.json", lambda facts: facts.pop("delivery"))
    with pytest.raises(ValueError, match=r"best\.json is damaged: .*delivery"):
        read_best(run)


def test_costs_are_shown_without_problem_json(run):
    whole = read_best(run).layers[-1].macs[0]
    (run / PROBLEM).unlink()
    assert f"{whole:,} → {read_best(run).macs:,}" in text_of(run)


def test_only_a_report_is_replaced(run):
    assert text_of(run, out=run / "report.html") == text_of(run, out=run / "report.html")
    before = (run / "best.json").read_text()
    with pytest.raises(FileExistsError, match="is no report"):
        write_page(run, run / "best.json")
    assert (run / "best.json").read_text() == before


def test_versions_of_a_wrong_type_are_refused(run):
    edit(run / "arguments.json", lambda facts: facts.update(versions=["1.0"]))
    with pytest.raises(ValueError, match="versions"):
        write_page(run)


def test_a_budget_is_written_with_all_its_digits(tmp_path):
    run_search(make_env(budget=0.625), "random", 1, out=tmp_path)
    assert "pruned to 0.625 of its MACs" in text_of(tmp_path)


def test_predicted_times_are_shown(run):
    edit(run / "best.json", lambda facts: facts.update(predicted_ms=[4.0, 3.0]))
    text = text_of(run)
    assert "75.0%" in text
    assert "4 ms → 3 ms, predicted" in text


def test_many_circles_are_thinned_out():
    few, many = [(0.0, 0.0)] * 7, [(0.0, 0.0)] * (3 * _CIRCLES)
    assert _thinned(few) == (few, "")
    assert len(_thinned(many)[0]) == _CIRCLES


def test_curves_stay_while_a_run_goes_on(tmp_path):
    problem = make_env().unwrapped.problem
    assert not has_problem(tmp_path, problem)
    write_problem(tmp_path, problem)
    assert has_problem(tmp_path, problem)
    edit(
        tmp_path / PROBLEM,
        lambda facts: facts["groups"][0].update(curve={"keep": [1], "losses": [0.5]}),
    )
    assert has_problem(tmp_path, problem)
    edit(tmp_path / PROBLEM, lambda facts: facts["groups"][0].update(channels=99))
    assert not has_problem(tmp_path, problem)
