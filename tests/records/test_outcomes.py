"""Outcomes of test images: kept to the bit, and refused where they are torn."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.records.outcomes import OUTCOMES, Outcomes, outcomes_of, read_outcomes, write_outcomes

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 10_000])
def test_hits_are_read_as_they_were_written(count: int, tmp_path: Path) -> None:
    rows = RANDOM.random((count, 2)) < 0.9
    write_outcomes(tmp_path, outcomes_of("a" * 64, rows.astype(np.int32), ["top1_err", "top5_err"]))
    outcomes = read_outcomes(tmp_path)
    assert outcomes is not None and outcomes.test_sha256 == "a" * 64 and len(outcomes) == count
    np.testing.assert_array_equal(outcomes.hits["top1_err"], rows[:, 0])
    np.testing.assert_array_equal(outcomes.hits["top5_err"], rows[:, 1])
    assert outcomes.score("top1_err") == pytest.approx(100 - 100 * rows[:, 0].mean())


def test_10_000_images_take_a_bit_each(tmp_path: Path) -> None:
    write_outcomes(tmp_path, outcomes_of("a" * 64, np.ones((10_000, 1), dtype=np.int32), ["top1_err"]))
    text = json.loads((tmp_path / OUTCOMES).read_text())["hits"]["top1_err"]
    assert len(text) == 4 * -(-1250 // 3)  # base64 of 1,250 bytes


def test_dice_is_that_of_pixels_pooled_over_images(tmp_path: Path) -> None:
    # By hand: TP 3 + 5, FP 1 + 0, FN 0 + 2 of class 1; class 2 does not occur.
    pixels = np.array([[[3, 1, 0], [0, 0, 0]], [[5, 0, 2], [0, 0, 0]]])
    write_outcomes(tmp_path, outcomes_of("b" * 64, pixels, ()))
    outcomes = read_outcomes(tmp_path)
    assert outcomes is not None and outcomes.hits == {} and len(outcomes) == 2
    assert outcomes.score("dice_err") == pytest.approx(100 * (1 - 16 / 19))
    with pytest.raises(KeyError):
        outcomes.score("top1_err")


def test_a_run_without_outcomes_has_none(tmp_path: Path) -> None:
    assert read_outcomes(tmp_path) is None


def change(**values: Any) -> Callable[[str], str]:
    return lambda text: json.dumps(json.loads(text) | values)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[: len(text) // 2], "is no file of outcomes"),
        (lambda text: "", "is no file of outcomes"),
        (lambda text: "[]", "is no file of outcomes"),
        (change(schema=99), "schema 99, this version reads 1"),
        (change(n=30), "3 bytes for 30 images"),
        (change(n="many"), "is no file of outcomes"),
        (change(hits={"top1_err": "*"}), "is no file of outcomes"),
        (change(hits=[1]), "is no file of outcomes"),
        (change(pixels=[[1, 2, 3]]), "3 counts for each class"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(damage: Callable[[str], str], words: str, tmp_path: Path) -> None:
    write_outcomes(tmp_path, Outcomes("a" * 64, {"top1_err": np.ones(20, dtype=bool)}))
    path = tmp_path / OUTCOMES
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError) as error:
        read_outcomes(tmp_path)
    message = str(error.value)
    assert words in message and str(path) in message and len(message.splitlines()) == 1


def test_what_is_no_file_keeps_no_reader_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / OUTCOMES)
    with pytest.raises(ValueError, match="outcomes.json is no file of outcomes: .*not a file"):
        read_outcomes(tmp_path)
