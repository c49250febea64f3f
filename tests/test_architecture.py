"""The folders show the architecture: data flows one way, and a name is given once."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
PACKAGE = CHECKOUT / "lfgcl_env"
ORDER = (
    "edge", "networks", "images", "config", "engine", "latency", "recovery", "pruning", "envs",
    "zoo", "runs", "export", "search", "page", "leaderboard", "cli",
)  # fmt: skip
"""Every folder uses only what stands before it, and itself."""

OUTSIDE = ("agents", "baselines")
"""They use the package as anybody's agent would; nothing in the package knows them by import."""

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Modules of this package that a file imports, wherever in it; those for types left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name for name in found if name.split(".")[0] == "lfgcl_env"}


def folder_of(name):
    return [*name.split("."), ""][1]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_points_up(path):
    own = folder_of(name_of(path))
    if own not in ORDER:
        return  # the package itself, which registers the environments
    allowed = set(ORDER[: ORDER.index(own) + 1])
    used = {folder_of(name) for name in imports(path)} - {"", "__version__"}
    assert used <= allowed


def test_every_folder_has_its_place():
    there = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert there - {"__init__"} == set(ORDER)


def test_no_module_needs_itself_to_be_imported():
    names = {name_of(path): path for path in MODULES}
    graph = {
        name: {used for used in imports(path) if used in names and used != name}
        for name, path in names.items()
        if path.name != "__init__.py"
    }
    done, trail = set(), []

    def visit(name):
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name in done or name not in graph:
            return
        trail.append(name)
        for used in sorted(graph[name]):
            visit(used)
        trail.pop()
        done.add(name)

    for name in graph:
        visit(name)


def test_packages_are_attributes_without_a_further_import():
    code = "import lfgcl_env; lfgcl_env.pruning.allocate; lfgcl_env.agents; print(dir(lfgcl_env))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"PruningProblem", "recovery"} <= set(ast.literal_eval(ended.stdout))


def test_importing_the_package_and_its_engine_leaves_pytorch_alone():
    code = (
        "import sys, lfgcl_env.engine, lfgcl_env.envs; print('torch' in sys.modules); "
        "print(lfgcl_env.PruningProblem, lfgcl_env.envs.LFGCLEnv)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    alone, *names = done.stdout.splitlines()
    assert alone == "False"
    assert names == [
        "<class 'lfgcl_env.pruning.problem.PruningProblem'> "
        "<class 'lfgcl_env.envs.global_env.LFGCLEnv'>"
    ]


def test_a_file_name_is_given_once():
    files = [p for top in ("lfgcl_env", *OUTSIDE) for p in (CHECKOUT / top).rglob("*.py")]
    twice = [name for name, count in Counter(p.name for p in files).items() if count > 1]
    assert sorted(set(twice) - {"__init__.py"}) == []


@pytest.mark.parametrize("top", OUTSIDE)
def test_agents_and_baselines_are_known_by_name_only(top):
    for path in MODULES:
        assert not any(name.startswith(f"lfgcl_env.{top}") for name in imports(path)), path
