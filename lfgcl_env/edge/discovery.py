"""Importing every module of a folder, so that what they register is registered."""

import sys
from importlib import import_module
from pkgutil import iter_modules


def import_modules(package: str) -> None:
    """Import every module of a package, in alphabetical order.

    A folder whose ``__init__.py`` calls it has a registry that a new file joins by its decorator,
    without an entry anywhere else.

    Args:
        package: its full name; it is imported or being imported.
    """
    for module in iter_modules(sys.modules[package].__path__):
        import_module(f"{package}.{module.name}")
