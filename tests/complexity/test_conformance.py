"""The table of docs/reference/counting.md is what the counters say."""

import pytest
from support.conformance import FORWARD, LAYERS, ROOT, TRAINING, ratio

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT = (ROOT / "docs/reference/counting.md").read_text(encoding="utf-8")
LINES = [line for line in TEXT.splitlines() if line.startswith("|")]
HEADS, _, *ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in LINES]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_of_the_table(row):
    cells = dict(zip(HEADS, row, strict=True))
    name = cells["layer"]
    assert cells["MACs"] == f"{LAYERS[name][1]:,}"
    for counter in ("ours", "fvcore", "torch"):
        assert cells[counter] == ratio(FORWARD[counter], name, training=False)
    for counter in TRAINING:
        assert cells[f"training, {counter}"] == ratio(TRAINING[counter], name, training=True)
    assert cells["ours"] == cells["training, ours"] == "1"


def test_the_table_has_nine_layers():
    assert [row[0] for row in ROWS] == list(LAYERS) and len(LAYERS) == 9
