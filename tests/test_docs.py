"""The pages: links lead somewhere, examples run, and what is generated is up to date."""

import importlib
import importlib.util
import json
import re
from pathlib import Path

import gymnasium as gym
import pytest

from lfgcl_env.edge.named_code import import_named

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(#[^)\s]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_and_images_lead_to_files(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    targets = {target for target, _ in LINK.findall(text) if "://" not in target}
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_of_the_repository_that_a_page_names_exist(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:benchmarks|docs|agents|baselines|lfgcl_env|tests)/[\w./]+)`", text)
    example = ("agents/NAME.py",)  # in CONTRIBUTING.md: the file to be written
    missing = [name for name in named if name not in example and not (ROOT / name).exists()]
    assert not missing


def test_every_page_in_docs_is_linked_from_the_index_and_that_from_the_readme():
    index = ROOT / "docs" / "index.md"
    linked = {target for target, _ in LINK.findall(index.read_text(encoding="utf-8"))}
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {index.name} <= linked
    assert "](docs/index.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_has_at_most_150_lines():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_results_page_counts_the_records_of_which_nobody_knows_what_made_them():
    unknown = {}
    for path in (ROOT / "benchmarks/results").glob("*.jsonl"):
        lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        if count := sum(not line["provenance"] for line in lines):
            unknown[path.stem] = count
    text = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    assert f"{sum(unknown.values())} records nothing" in text
    assert all(f"`{re.sub('_resnet[0-9]+', '_*', stem)}`" in text for stem in unknown)


def test_pages_of_arguments_are_what_their_generator_writes():
    spec = importlib.util.spec_from_file_location("arguments", ROOT / "docs/make_arguments.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert generator.PATH.read_text(encoding="utf-8") == generator.page(), "run `make docs`"
    made = generator.recovery_page()
    assert generator.RECOVERY.read_text(encoding="utf-8") == made, "run `make docs`"
    assert "| `--weight-decay` |" in made


def test_patterns_in_the_tables_of_arguments_are_code_and_no_emphasis():
    text = (ROOT / "docs/arguments.md").read_text(encoding="utf-8")
    assert "`{'layer1.*': 4, '*': 8}`" in text
    rows = [re.sub(r"`[^`]*`", "", line) for line in text.splitlines() if line.startswith("|")]
    assert not [row for row in rows if "*" in row.replace("|  * |", "", 1)]


def test_agents_that_a_page_names_exist():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = re.findall(r"`?(lfgcl_env\.(?:agents|baselines)\.[a-z]\w*:\w+)", text)
        for line in text.splitlines():
            if likewise := re.search(r"baselines\.amc:make`, and likewise (.+)", line):
                more = re.findall(r"`(\w+)`", likewise[1])
                named += [f"lfgcl_env.baselines.{name}:make" for name in more]
        for name in named:
            assert callable(import_named(name, "agent")), f"{page.name}: {name}"


def test_the_site_has_the_public_interface_of_every_folder_and_agent(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    pages = importlib.import_module("make_pages")
    shown = {name for names in pages.API.values() for name in names}
    folders = [path.parent for path in (ROOT / "lfgcl_env").glob("*/__init__.py")]
    public = {f"lfgcl_env.{folder.name}" for folder in folders if has_names(folder)}
    assert len(public) > 5
    assert public <= shown
    for folder in ("agents", "baselines"):
        files = {path.stem for path in (ROOT / folder).glob("[!_]*.py")}
        assert {f"lfgcl_env.{folder}.{name}" for name in files} <= shown


def test_every_id_has_a_page_with_its_spaces(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    pages = importlib.import_module("make_pages")
    known = {env_id for ids in pages.IDS.values() for env_id in ids}
    ours = {n for n, spec in gym.registry.items() if "lfgcl_env." in str(spec.entry_point)}
    assert known == ours
    small = {
        kind: {env_id: name for env_id, name in ids.items() if name == "resnet20"}
        for kind, ids in pages.IDS.items()
    }
    monkeypatch.setattr(pages, "IDS", small)
    made = pages.environments()
    assert len(made) == 4
    for env_id in (env_id for ids in small.values() for env_id in ids):
        page = made[f"environments/{env_id}.md"]
        own = {"reward": "similarity"} if env_id.startswith("AMC") else {}
        env = gym.make(env_id, images="random", num_images=2, weights="random", **own)
        for space in (env.action_space, env.observation_space):
            assert f"`{str(space).removesuffix(', float32)').replace('.0', '')})`" in page
        assert f"\n{env_id}\n" in made["environments/index.md"]


def has_names(folder):
    return hasattr(importlib.import_module(f"lfgcl_env.{folder.name}"), "__all__")
