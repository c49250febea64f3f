"""The study of architectures: its table is what the documentation shows."""

from pathlib import Path

from study import newest
from zoo import COLUMNS

CHECKOUT = Path(__file__).parents[2]
RESULTS = CHECKOUT / "benchmarks/results"


def test_the_page_shows_every_network_that_was_measured():
    table = (RESULTS / "zoo.md").read_text()
    assert table in (CHECKOUT / "docs/architectures.md").read_text()
    head, _, *rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert tuple(head) == COLUMNS
    measured = {record["network"]: record for record in newest(RESULTS / "zoo.jsonl")}
    assert {row[0] for row in rows} == measured.keys()
    for row in rows:
        record = measured[row[0]]
        lowest = record.get("lowest")
        assert row[1].startswith("refused: ") if lowest is None else row[3] == f"{lowest:.1%}"
