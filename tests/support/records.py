"""Run folders for tests: `make_run` writes a record.json and history.jsonl as a real run leaves them."""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from pathlib import Path
from typing import Any

# Parameters and multiply-adds of one image, of the size of the networks that the digits and nuclei runs train.
COMPLEXITIES = {
    "resnet20": (272_186, 2_541_184),
    "resnet29": (297_514, 2_870_912),
    "resnext29_8x4d": (158_826, 1_644_672),
    "densenet40_k12": (1_019_146, 16_543_000),
    "unet_d4_c16": (1_942_866, 766_509_056),
}


def make_run(
    root: Path, *, epochs: int = 12, history: list[dict[str, Any]] | None = None, final: float = 2.0, **changes: Any
) -> Path:
    """Write a full run folder below `root` and return it.

    `changes` replace top-level entries of the record; a dictionary is merged into the entry that is there, so
    `metrics={"test/top1_err": 3.0}` keeps the other metrics. `final` is about where the error ends after `epochs`
    evaluations; `history` replaces the rows altogether. `task="segmentation"` gives a segmentation run.
    """
    task = changes.get("task", "classification")
    name = changes.get("name", "resnext29_8x4d" if task == "classification" else "unet_d4_c16")
    family = changes.get("family", re.split(r"[0-9_]", name, maxsplit=1)[0])
    data = changes.get("data", "digits" if task == "classification" else "nuclei")
    seed = changes.get("seed", 0)
    status = changes.get("status", "ok")
    params, macs = COMPLEXITIES.get(name, (1_000_000, 10_000_000))
    macs = (changes.get("complexity") or {}).get("macs", macs)
    counts = {"train": 1197, "val": 150, "test": 450}
    if task == "segmentation":
        counts = {"train": 54, "val": 6, "test": 15}
    short = "top1_err" if task == "classification" else "dice_err"
    train_macs = 3 * macs - macs // 50
    rng = random.Random(f"{data} {name} {seed}")

    if history is None:
        history = []
        for epoch in range(1, epochs + 1):
            seen = epoch * counts["train"]
            error = max(0.0, final + 80 * math.exp(-6 * epoch / epochs) + rng.uniform(-0.4, 0.4) * final)
            row: dict[str, Any] = {
                "epoch": epoch,
                "step": epoch * math.ceil(counts["train"] / 64),
                "samples_seen": seen,
                "train_macs": seen * train_macs,
                "train_flops": 2 * seen * train_macs,
                "wall_s": 2.5 * epoch,
                "lr": 0.1 * (1 - epoch / (epochs + 1)),
                "train/loss": 0.02 * error + 0.01,
                "val/loss": 0.03 * error + 0.02,
                f"val/{short}": error,
            }
            if task == "segmentation":
                row |= {"val/dice": 1 - error / 100, "val/iou": (100 - error) / (100 + error)}
            history.append(row)
    last: dict[str, Any] = history[-1] if history else {"samples_seen": 0, "step": 0, "epoch": 0, "wall_s": 0.0}
    samples = last["samples_seen"]

    ended = status == "ok"
    reported = round(final + rng.uniform(-0.3, 0.3) * final, 4)
    metrics: dict[str, Any] = {f"test/{short}": reported, "test/loss": 0.03 * reported, "test/n": counts["test"]}
    if task == "segmentation":
        metrics |= {"test/dice": 1 - reported / 100, "test/iou": (100 - reported) / (100 + reported)}
        metrics["test/n_pixels"] = 983_040
    definition = {
        "top1_err": "100 * (1 - MulticlassAccuracy(top_k=1, average='micro'))",
        "dice_err": "100 * (1 - DiceScore(average='micro', aggregation_level='global'))",
    }[short]
    baselines = {"otsu_dice": 0.884} if task == "segmentation" else {}
    record: dict[str, Any] = {
        "schema": 1,
        "status": status,
        "error": "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB" if status == "failed" else None,
        "experiment": None,
        "data": data,
        "task": task,
        "family": family,
        "name": name,
        "recipe": f"{family}_{data}",
        "seed": seed,
        "overrides": {},
        "config_hash": hashlib.sha256(f"{data} {name} {seed}".encode()).hexdigest()[:16],
        "started": "2026-11-22T21:00:00+00:00",
        "finished": None if status == "running" else "2026-11-22T21:01:12+00:00",
        "code": {"version": "0.1.0", "commit": "5d3c1a9e0f2b4c6d8e7f9a1b3c5d7e9f0a2b4c6d", "diff_sha256": None},
        "environment": {
            "python": "3.11.7",
            "platform": "Linux-6.1.0-x86_64-with-glibc2.36",
            "packages": {"torch": "2.13.0+cpu", "lightning": "2.6.6", "torchmetrics": "1.9.0"},
            "device": "cpu",
            "device_name": "AMD EPYC 7B13",
            "cores": 2,
            "threads": 2,
            "memory_bytes": 8_589_934_592,
        },
        "parallel": {
            "world_size": 1,
            "devices": 1,
            "num_nodes": 1,
            "strategy": "single",
            "backend": None,
            "sync_batchnorm": False,
            "precision": "32-true",
            "global_batch_size": 64,
        },
        "dataset": {
            "counts": counts,
            "classes": [str(digit) for digit in range(10)] if task == "classification" else ["background", "nucleus"],
            "sha256": hashlib.sha256(data.encode()).hexdigest(),
            "image_shape": [1, 8, 8] if task == "classification" else [3, 256, 256],
            "notes": "",
            "baselines": baselines,
        },
        "counts": counts,
        "complexity": {
            "params": params,
            "macs": macs,
            "flops": 2 * macs,
            "activations": macs // 40,
            "train_macs_per_sample": train_macs,
            "train_flops_per_sample": 2 * train_macs,
            "input_size": [1, 8, 8] if task == "classification" else [3, 256, 256],
        },
        "compute": {
            "train_flops": 2 * samples * train_macs,
            "train_macs": samples * train_macs,
            "samples_seen": samples,
            "steps": last["step"],
            "epochs": last["epoch"],
            "wall_s": last["wall_s"] + 1.5,
            "train_s": last["wall_s"],
            "images_per_s": 478.8,
            "peak_memory_bytes": 512_000_000,
        }
        if status != "running"
        else {},
        "protocol": {
            "checkpoint": "last",
            "split": "test",
            "metric": f"test/{short}",
            "metric_label": "test error (%)" if task == "classification" else "100 − Dice (%)",
            "definitions": {short: definition},
        },
        "metrics": metrics if ended else {},
        "baselines": baselines,
        "resumptions": [],
        "weights_sha256": hashlib.sha256(f"weights {name} {seed}".encode()).hexdigest() if ended else None,
        "wandb": {"id": "r1a2b3c4", "mode": "offline"},
    }
    for key, value in changes.items():
        old = record.get(key)
        record[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value

    overrides = "".join(f",{key.rpartition('.')[2]}={value}" for key, value in record["overrides"].items())
    folder = Path(root, _safe(record["data"]), _safe(record["name"]), record["recipe"] + overrides, f"seed{seed}")
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history), encoding="utf-8")
    return folder


def _safe(name: str) -> str:
    return name.replace("/", "_")
