"""What came out for each test image of a run, so that runs can be compared image by image. Imports no torch."""

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.records.files import read_bytes, write_json

OUTCOMES = "outcomes.json"
SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The outcomes of a test set of N images, in its order.

    Attributes:
        test_sha256: checksum of the test images and targets.
        hits: by metric, ``top1_err`` or ``top5_err``: bool (N,), whether the image was classified correctly.
        pixels: of masks, int (N, K - 1, 3): true positive, false positive and false negative pixels of each foreground class;
            None for classified images.
    """

    test_sha256: str
    hits: dict[str, np.ndarray]
    pixels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(next(iter(self.hits.values())) if self.pixels is None else self.pixels)

    def score(self, metric: str) -> float:
        """Return ``top1_err``, ``top5_err`` or ``dice_err`` in percent, as the run's module defines it.

        Raises:
            KeyError: these outcomes do not give the metric.
        """
        if metric in self.hits:
            return float(100 * np.count_nonzero(~self.hits[metric]) / len(self))
        if self.pixels is None or metric != "dice_err":
            raise KeyError(metric)
        true, false, missed = self.pixels.sum(axis=0, dtype=np.int64).T.astype(float)
        there = 2 * true + false + missed > 0
        return float(100 * (1 - np.mean(2 * true[there] / (2 * true + false + missed)[there])))


def outcomes_of(test_sha256: str, rows: np.ndarray, metrics: Sequence[str]) -> Outcomes:
    """Return the outcomes that a module counted: (N, metrics) hits of classified images, or (N, K - 1, 3) pixels of masks."""
    if rows.ndim == 3:
        return Outcomes(test_sha256, {}, rows)
    return Outcomes(test_sha256, {metric: column.astype(bool) for metric, column in zip(metrics, rows.T, strict=True)})


def write_outcomes(directory: Path, outcomes: Outcomes) -> None:
    """Write a run's outcomes: a bit for each image and metric, eight to a byte, the first image highest; of masks, counts."""
    content: dict[str, Any] = {"schema": SCHEMA, "test_sha256": outcomes.test_sha256, "n": len(outcomes)}
    if outcomes.pixels is None:
        content["hits"] = {
            name: base64.b64encode(np.packbits(hits).tobytes()).decode() for name, hits in outcomes.hits.items()
        }
    else:
        content["pixels"] = outcomes.pixels.tolist()
    write_json(directory / OUTCOMES, content)


def read_outcomes(directory: Path) -> Outcomes | None:
    """Return the outcomes in a run's folder, None where there are none.

    Raises:
        ValueError: the file is torn or not one of ours, in one line that names it.
    """
    path = os.path.join(directory, OUTCOMES)
    try:
        content = json.loads(read_bytes(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no file of outcomes: {error}") from None
    try:
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']}, this version reads {SCHEMA}")
        count, checksum = int(content["n"]), str(content["test_sha256"])
        if count < 1:
            raise ValueError(f"n is {count}")
        if "pixels" in content:
            pixels = np.array(content["pixels"])
            if pixels.shape[:1] + pixels.shape[2:] != (count, 3) or pixels.dtype.kind != "i" or pixels.min() < 0:
                raise ValueError(f"pixels are not {count} images with 3 counts for each class")
            return Outcomes(checksum, {}, pixels)
        return Outcomes(checksum, {name: _unpacked(text, count) for name, text in content["hits"].items()})
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is no file of outcomes: {type(error).__name__}: {error}") from None


def _unpacked(text: str, count: int) -> np.ndarray:
    packed = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    if len(packed) != -(-count // 8):
        raise ValueError(f"{len(packed)} bytes for {count} images")
    return np.unpackbits(packed, count=count).view(bool)  # zeros and ones
