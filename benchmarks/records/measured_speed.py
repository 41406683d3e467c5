"""What `python -m benchmarks throughput` has measured: kept in ``<output_root>/throughput.json``, entered into runs' records.

A record gets a block ``throughput``: when its run is measured, or where that was before, when it has ended. It says what the
run's network, images, share of a batch, precision, switches and threads make on the run's own hardware, and nothing where that
was not measured. Imports no torch.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.records.files import RECORD, read_json, write_json
from benchmarks.records.hardware import hardware
from benchmarks.records.locks import LAUNCHER, Lock

KEPT = "throughput.json"
BLOCK = "throughput"
NETWORK = ("input_size", "params", "macs", "activations")
PARALLEL = (
    *("world_size", "num_nodes", "sync_batchnorm", "global_batch_size", "precision"),
    *("compile", "channels_last", "tf32", "accumulate_grad_batches", "gradient_checkpointing"),
)


def key_of(record: Mapping[str, Any]) -> str | None:
    """Of all in a record that a measurement depends on; None where its run did not come so far."""
    try:
        environment, network, parallel = (dict(record[name]) for name in ("environment", "complexity", "parallel"))
        depends_on = {
            **{name: record[name] for name in ("data", "name", "recipe")},
            "overrides": _relevant(record["overrides"]),
            "network": {name: network[name] for name in NETWORK},
            "parallel": {name: parallel[name] for name in PARALLEL}
            | {"averages": parallel.get("ema_decay") is not None},
            "hardware": hardware(environment),
            "threads": None if environment["device"] == "cuda" else environment["threads"],
        }
    except (KeyError, TypeError, ValueError):
        return None
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]


def _relevant(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Those of network and optimiser; a number of the optimiser changes no time unless it is zero."""
    found = {key: value for key, value in overrides.items() if key.startswith("model.")}
    for key, value in overrides.items():
        if key.startswith("recipe.optimizer."):
            found[key] = bool(value) if isinstance(value, int | float) else value
    return found


def keep(root: Path, key: str, figures: Mapping[str, Any]) -> Path:
    """Adds a measurement, in place of an earlier one of the same. Returns the file."""
    path = root / KEPT
    root.mkdir(parents=True, exist_ok=True)
    write_json(path, (read_json(path) or {}) | {key: dict(figures)})
    return path


def block(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Of a measurement what a record gets; seconds of one image, images per second of all processes, memory of one."""
    latency, forward, training = (figures[name] for name in ("latency", "forward", "training"))
    return {
        "latency_s": latency["median_s"],
        "latency_quartiles_s": latency["quartiles_s"],
        **{f"{name}_images_per_s": one["images_per_s"] for name, one in (("forward", forward), ("train", training))},
        **{f"{name}_quartiles_s": one["quartiles_s"] for name, one in (("forward", forward), ("train", training))},
        **{
            f"{name}_memory_bytes": one["peak_memory_bytes"]
            for name, one in (("forward", forward), ("train", training))
        },
        "made": figures["made"],
    }


def enter(directory: Path, root: Path) -> bool:
    """Enters what was measured into a finished run's record; whether that changed it. The caller holds the launcher's lock."""
    kept = read_json(root / KEPT)
    record = read_json(directory / RECORD) if kept else None
    if kept is None or record is None or record.get("status") != "ok":
        return False
    figures = kept.get(key_of(record) or "")
    if figures is None or record.get(BLOCK) == (its := block(figures)):
        return False
    write_json(directory / RECORD, record | {BLOCK: its})
    return True


def enter_all(root: Path, data: str, name: str) -> int:
    """The same for every finished run of a network on a data set that no launcher is at; how many records changed."""
    changed = 0
    for path in sorted(root.glob(f"{data}/{name}/*/*/{RECORD}")):
        lock = Lock.take(path.with_name(LAUNCHER))
        if lock is not None:
            try:
                changed += enter(path.parent, root)
            finally:
                lock.release()
    return changed
