"""The version of an agent: a hash of its code."""

import ast
import hashlib
import json
from collections.abc import Iterator
from importlib.util import find_spec, resolve_name
from pathlib import Path

import yaml

from lfgcl_env import zoo


def agent_version(name: str) -> str:
    """Return a hash of an agent's code; comments, docstrings and layout do not change it.

    Args:
        name: an agent of :mod:`lfgcl_env.zoo`, one of :mod:`lfgcl_env.agents`, ``"module:factory"``
            or a module. The modules that it imports from its own package are part of it; of the
            algorithms in the zoo the settings are.

    Raises:
        ValueError: if its module is not found.

    >>> agent_version("random") == agent_version("lfgcl_env.agents.random:make")
    True
    """
    if name in zoo.ALGORITHMS:
        code = [*_sources("lfgcl_env.zoo.sb3"), zoo.path(name)]
    else:
        module = name.partition(":")[0]
        code = list(
            _sources(module if "." in module or ":" in name else f"lfgcl_env.agents.{name}")
        )
    digest = hashlib.sha256()
    for path in sorted(code, key=lambda path: path.name):
        digest.update(_normalized(path).encode())
    return digest.hexdigest()[:12]


def _sources(module: str) -> Iterator[Path]:
    """Yield the file of a module, and those of its package that it imports."""
    found: set[str] = set()
    left = [module]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise ValueError(f"there is no module {name!r} to take an agent's version from")
        path = Path(spec.origin)
        yield path
        if spec.parent:
            left += _imported(ast.parse(path.read_text(encoding="utf-8")), spec.parent)


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Yield the modules of a package that code in it imports."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        name = "." * node.level + (node.module or "")
        origin = resolve_name(name, package) if node.level else name
        if origin.startswith(f"{package}."):
            yield origin
        elif origin == package:
            modules = (f"{package}.{alias.name}" for alias in node.names)
            yield from (module for module in modules if find_spec(module) is not None)


def _normalized(path: Path) -> str:
    """Return what a file says besides comments, docstrings and layout."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return json.dumps(yaml.safe_load(text), sort_keys=True)
    tree = ast.parse(text)
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return ast.unparse(tree)
