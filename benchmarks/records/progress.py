"""How far a run is, from the progress that it writes."""

from typing import Any


def where_it_is(progress: dict[str, Any]) -> list[str]:
    """A run's progress in words: what comes before training and how far it is, epoch and metrics, or the test."""
    if progress["phase"] == "prepare":
        counts = [f"{progress[count]:,}" for count in ("done", "total") if progress[count]]
        return [progress["what"], "/".join(counts)] if counts else [progress["what"]]
    phase = f"epoch {progress['epoch']}/{progress['epochs']}" if progress["phase"] == "train" else "testing"
    return [phase, *(f"{name} {value:.3g}" for name, value in progress["metrics"].items() if value is not None)]


def part_of(progress: dict[str, Any]) -> float | None:
    """How much of a run is done, 0 to 1; None before training, and where that is not known."""
    known = progress["total"] and progress["phase"] != "prepare"
    return progress["done"] / progress["total"] if known else None
