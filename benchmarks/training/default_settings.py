"""What a run takes where its configuration leaves layout or precision open. Imports no torch.

Layouts are from a table of measurements, so that equal configurations give equal weights: no timing of the moment decides.
"""

import csv
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.records.hardware import multiplies_bf16

LAYOUTS = Path(__file__).with_name("layouts.csv")  # `python -m benchmarks measure layouts --write` writes it
AUTO = "auto"  # of trainer.precision
Key = tuple[str, str, str]  # device type, family, precision


@lru_cache
def layouts() -> dict[Key, tuple[bool, float]]:
    """Return what was measured: whether channels_last is the faster layout, and its step's time as a multiple of NCHW's."""
    with LAYOUTS.open(newline="", encoding="utf-8") as file:
        return {
            (row["device"], row["family"], row["precision"]): (row["channels_last"] == "true", float(row["time_ratio"]))
            for row in csv.DictReader(file)
        }


def complete(config: Mapping[str, Any], trainer: Mapping[str, Any], gpu: bool) -> tuple[dict[str, Any], str | None]:
    """Return a trainer's arguments with precision and layout set, and why the default layout is not NCHW, in one line or None.

    ``trainer`` are its arguments: ``config["trainer"]`` or what tuning made of it. ``gpu``: whether the run is on one.
    """
    precision = exact_precision(trainer["precision"], gpu)
    completed = {**trainer, "precision": precision}
    faster, ratio = layouts().get(("cuda" if gpu else "cpu", config["family"], precision), (False, 1.0))
    if not faster or trainer.get("channels_last") is not None:
        return completed, None
    what = f"{config['family']} in {precision} on a {'GPU' if gpu else 'CPU'}"
    note = f"layout: channels_last, in which {what} was measured to take {ratio:.2f} times as long a step as in NCHW"
    return completed | {"channels_last": True}, f"{note}; trainer.channels_last=false for that"


def exact_precision(asked: str, gpu: bool) -> str:
    """Return the precision of a run: for ``auto`` bf16-mixed where the hardware is known to multiply it, else 32-true."""
    if asked != AUTO:
        return asked
    return "bf16-mixed" if multiplies_bf16(gpu) else "32-true"
