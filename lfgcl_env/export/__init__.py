"""Exporting networks to files that run without this package."""

from lfgcl_env.export.export_network import Exported, export_network
from lfgcl_env.export.formats import FORMATS

__all__ = ["FORMATS", "Exported", "export_network"]
