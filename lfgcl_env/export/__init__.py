"""Exporting networks to files that run without this package, in float and in int8."""

from lfgcl_env.export.comparison_with_float import Comparison, OnnxNetwork, compare
from lfgcl_env.export.export_network import Exported, export_network
from lfgcl_env.export.formats import FORMATS
from lfgcl_env.export.int8 import quantize

__all__ = [
    "FORMATS",
    "Comparison",
    "Exported",
    "OnnxNetwork",
    "compare",
    "export_network",
    "quantize",
]
