"""The operators that are timed do the work that the table says."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.benchmark_command import command
from torch import Tensor

from benchmarks.performance.beside_torchvision import BOXES, SIDE, Inputs, beside, operators
from benchmarks.performance.operators import measure
from lightning_modules.nets.boxes import nms
from lightning_modules.nets.roi_align import roi_align

pytestmark = pytest.mark.usefixtures("one_thread")


def test_what_is_timed_is_the_work_that_the_table_names() -> None:
    work = operators(Inputs(torch.device("cpu"), regions=5, channels=3))
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


class Ops(SimpleNamespace):
    """As torchvision.ops: a map alone, boxes behind the number of their image."""

    threshold = 0.0

    @staticmethod
    def roi_align(features: Tensor, boxes: Tensor, size: int, scale: float, samples: int, aligned: bool) -> Tensor:
        images = boxes[:, 0].long()
        return roi_align([features], [1 / scale], boxes[:, 1:], images, 0 * images, size, samples, aligned)  # type: ignore[list-item]

    @classmethod
    def nms(cls, boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
        return nms(boxes, scores, threshold - cls.threshold)


def test_operators_are_timed_beside_others_that_compute_the_same_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = Inputs(torch.device("cpu"), regions=9, channels=2)
    rows: dict[str, Any] = beside(inputs, Ops, seconds=0)
    assert set(rows) == set(operators(inputs))
    for row in rows.values():
        assert row["here"] > 0 and row["torchvision"] > 0 and 0 < row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    monkeypatch.setattr(Ops, "threshold", 0.3)
    with pytest.raises(ValueError, match="non-maximum suppression is not what torchvision computes"):
        beside(inputs, Ops, seconds=0)


def test_an_interpreter_without_torchvision_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for python, message in ((sys.executable, "torchvision"), ("nowhere/python", "No such file")):
        assert command("measure operators")(["--torchvision", python]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert f"--torchvision {python}: " in line and message in line
