"""Names that a package imports when they are asked for, so that importing it takes little."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def imported_later(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a package's ``__getattr__``, which imports a name from its module.

    PyTorch alone takes seconds and hundreds of MiB, which a process that computes nothing need not
    spend.

    Args:
        package: its name, for the message about a name that it has not.
        modules: where each of its names is; its own name for a module itself.
    """

    def find(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(modules[name])
        return module if modules[name] == f"{package}.{name}" else getattr(module, name)

    return find
