"""Words and tables that several commands print."""

from lfgcl_env.networks import Baseline

METRIC_NAMES = {"macs": "MACs", "params": "params"}


def described(baseline: Baseline) -> str:
    """A network and where its weights are from."""
    return f"{baseline.name or type(baseline.network).__name__} with {baseline.weights} weights"


def columns(lines: list[list[str]]) -> list[str]:
    """Lines of cells, aligned."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
