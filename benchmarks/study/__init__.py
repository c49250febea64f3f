"""The tool under all benchmarks: a grid of runs, measured once each, kept, and reported."""

from study.agent_version import agent_version
from study.markdown import markdown_table
from study.records import Fields, newest, origins
from study.script import RESULTS, new_parser, prepare, study_parser
from study.statistics import correlation, correlation_cell, interval
from study.study import Study

__all__ = [
    "RESULTS",
    "Fields",
    "Study",
    "agent_version",
    "correlation",
    "correlation_cell",
    "interval",
    "markdown_table",
    "new_parser",
    "newest",
    "origins",
    "prepare",
    "study_parser",
]
