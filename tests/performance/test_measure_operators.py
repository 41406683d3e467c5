"""The operators that are timed do the work that the table says."""

import pytest
import torch

from benchmarks.performance.operators import BOXES, SIDE, measure, operators

pytestmark = pytest.mark.usefixtures("one_thread")


def test_what_is_timed_is_the_work_that_the_table_names() -> None:
    work = operators(torch.device("cpu"), regions=5, channels=3)
    assert work["RoIAlign, forward"]().shape == (5, 3, SIDE, SIDE)
    gradients = work["RoIAlign, forward and backward"]()
    # The weights of a sampled point add up to one, so that the gradients of the sum add up to the bins.
    assert float(sum(each.sum() for each in gradients)) == pytest.approx(5 * 3 * SIDE**2, rel=0.02)
    kept = work["non-maximum suppression"]()
    assert 0 < len(kept) < BOXES


def test_every_operator_has_a_time_with_its_interval() -> None:
    rows = measure("cpu", seconds=0, regions=4, channels=2)
    assert len(rows) == 3
    assert all(0 < row["seconds_low"] <= row["seconds"] <= row["seconds_high"] for row in rows)
