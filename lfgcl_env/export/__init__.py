"""Exporting networks to files that run without this package, in float and in int8."""

from lfgcl_env.export.comparison_with_float import Comparison, OnnxNetwork, compare
from lfgcl_env.export.export_network import Exported, export_network
from lfgcl_env.export.formats import FORMATS
from lfgcl_env.export.int8 import CALIBRATIONS, Quantized, quantize

__all__ = [
    "CALIBRATIONS",
    "FORMATS",
    "Comparison",
    "Exported",
    "OnnxNetwork",
    "Quantized",
    "compare",
    "export_network",
    "quantize",
]
