"""The speed of networks that `python -m benchmarks throughput` has measured, in ``<output_root>/throughput.json``.

A measurement holds for the runs of the same network, images, share of a batch, precision, training options and threads on the
same hardware; they get it as a block ``throughput`` when they are read. Imports no torch.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.records.files import read_json
from benchmarks.records.hardware import hardware
from benchmarks.records.locks import update_json

KEPT = "throughput.json"
BLOCK = "throughput"
LOAD = "other_load"  # of the machine in the minute before, where that makes the figures too low
NETWORK = ("input_size", "params", "macs", "activations")
PARALLEL = (
    *("world_size", "num_nodes", "sync_batchnorm", "global_batch_size", "precision"),
    *("compile", "channels_last", "tf32", "accumulate_grad_batches", "gradient_checkpointing"),
)


def key_of(record: Mapping[str, Any]) -> str | None:
    """Return a hash of all in a record that a measurement depends on; None where its run did not come so far."""
    try:
        environment, network, parallel = (dict(record[name]) for name in ("environment", "complexity", "parallel"))
        depends_on = {
            **{name: record[name] for name in ("data", "name", "recipe")},
            "overrides": _relevant(record["overrides"]),
            "network": {name: network[name] for name in NETWORK},
            "parallel": {name: parallel[name] for name in PARALLEL}
            | {"averages": parallel.get("ema_decay") is not None}
            | ({"cuda_graph": True} if parallel.get("cuda_graph") else {}),
            "hardware": hardware(environment),
            "threads": None if environment["device"] == "cuda" else environment["threads"],
        }
    except (KeyError, TypeError, ValueError):
        return None
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]


def _relevant(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides of network and optimiser; a number of the optimiser changes no time unless it is zero."""
    relevant = {key: value for key, value in overrides.items() if key.startswith("model.")}
    for key, value in overrides.items():
        if key.startswith("recipe.optimizer."):
            relevant[key] = bool(value) if isinstance(value, int | float) else value
    return relevant


def keep(root: Path, key: str, figures: Mapping[str, Any]) -> Path:
    """Add a measurement, in place of an earlier one of the same; return the file."""
    path = root / KEPT
    update_json(path, lambda kept: kept | {key: dict(figures)})
    return path


def block(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return a measurement as a record's block: seconds of one image, images per second of all processes, bytes of one."""
    content = {"latency_s": figures["latency"]["median_s"], "latency_quartiles_s": figures["latency"]["quartiles_s"]}
    for name, one in (("forward", figures["forward"]), ("train", figures["training"])):
        content[f"{name}_images_per_s"] = one["images_per_s"]
        content[f"{name}_quartiles_s"] = one["quartiles_s"]
        content[f"{name}_memory_bytes"] = one["peak_memory_bytes"]
    return content | {"made": figures["made"], **({LOAD: figures[LOAD]} if figures.get(LOAD) else {})}


def read(root: Path) -> dict[str, dict[str, Any]]:
    """Return the measurements under an output root by the key of their records; empty where there are none."""
    return read_json(root / KEPT) or {}


def add_to(record: dict[str, Any], measurements: Mapping[str, Mapping[str, Any]]) -> None:
    """Give a finished run's record the measurement that holds for it, where there is one."""
    if record["status"] != "ok" or not measurements:
        return
    figures = measurements.get(key_of(record) or "")
    with suppress(KeyError, TypeError):  # something else has written to the file
        record[BLOCK] = block(figures or {})
