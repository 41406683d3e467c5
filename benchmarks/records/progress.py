"""How far a run is, from the progress that it writes."""

from pathlib import Path
from typing import Any

from benchmarks.records.files import PROGRESS, read_json
from benchmarks.units import MISSING, number, score

COUNTS = ("epoch", "epochs", "done", "total", "time")
DROPPED_FIRST = ("loss", "speed", "time")  # where a line has no room for all; the error stays


def read_progress(directory: Path) -> dict[str, Any] | None:
    """Return what a run last said of itself; None where it has said nothing, or something else has written there."""
    progress = read_json(directory / PROGRESS)
    if progress is None or not all(number(progress.get(name)) is not None for name in COUNTS):
        return None
    metrics, phase = progress.get("metrics"), progress.get("phase")
    if not isinstance(metrics, dict) or phase not in ("prepare", "train", "test"):
        return None
    if phase == "prepare" and not isinstance(progress.get("what"), str):
        return None
    return progress | {
        "metrics": {str(name): number(value) for name, value in metrics.items()},
        **{name: text if isinstance(text := progress.get(name), str) else "" for name in ("label", "evaluation")},
        **{name: number(progress.get(name)) for name in ("elapsed_s", "left_s", "images_per_s")},
    }


def progress_parts(progress: dict[str, Any]) -> dict[str, str]:
    """Return a run's progress in words: what comes before training and how far it is, or epoch, time, speed and metrics."""
    if progress["phase"] == "prepare":
        counts = [f"{progress[count]:,}" for count in ("done", "total") if progress[count]]
        return {"phase": progress["what"]} | ({"count": "/".join(counts)} if counts else {})
    parts = {"phase": f"epoch {progress['epoch']}/{progress['epochs']}" if progress["phase"] == "train" else "testing"}
    if (elapsed := progress.get("elapsed_s")) is not None:
        left = progress.get("left_s")
        parts["time"] = f"{clock(elapsed)}<{'?' if left is None or left < 0 else clock(left)}"
    if speed := progress.get("images_per_s"):
        parts["speed"] = f"{speed:.3g} img/s" if speed < 100 else f"{speed:,.0f} img/s"
    for name, value in progress["metrics"].items():
        if value is not None and name == "train/loss":
            parts["loss"] = f"loss {value:.3g}"
        elif value is not None:
            title, shown, unit = score(value, progress.get("label") or "error (%)")
            parts["error"] = " ".join(filter(None, (f"val {title.replace('error', 'err')} {shown:.3g}", unit)))
    return {key: parts[key] for key in ("phase", "time", "speed", "error", "loss") if key in parts}


def progress_line(progress: dict[str, Any], width: int | None = None) -> str:
    """Return a line of at most ``width``: ``epoch 2/4  01:56<01:27  28.1 img/s  val err 4.2 %  loss 0.31``."""
    parts = progress_parts(progress)
    for key in DROPPED_FIRST:
        if width is not None and len("  ".join(parts.values())) > width:
            parts.pop(key, None)
    return "  ".join(parts.values())


def clock(seconds: float | None) -> str:
    """Return a duration as progress bars write it: ``01:56``, ``2:03:00``."""
    if seconds is None:
        return MISSING
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


def part_of(progress: dict[str, Any]) -> float | None:
    """Return how much of a run is done, 0 to 1; None before training, and where that is not known."""
    known = progress["total"] and progress["phase"] != "prepare"
    return progress["done"] / progress["total"] if known else None
