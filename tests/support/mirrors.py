"""What a mirror holds, read by its client's own reader."""

import csv
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CLIENTS = ("mlflow", "tensorboard", "trackio")


@dataclass
class Held:
    """A run in a mirror.

    Attributes:
        curves: step and value of each scalar, as often as they are there.
        facts: what the run computes.
        ended: how the mirror says that it ended.
        pictures: how many there are.
        error: what is said beside the outcome, where the mirror has one place for it.
    """

    curves: dict[str, list[tuple[int, float]]]
    facts: dict[str, str]
    ended: str
    pictures: int = 0
    name: str = field(default="")
    error: str | None = None


def of_csv(root: Path, directory: Path) -> Held:
    with (directory / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            if value:
                curves[name].append((int(row["trainer/global_step"]), float(value)))
    path = directory / "summary.csv"
    with path.open(newline="") if path.exists() else open(os.devnull) as file:
        facts = dict(list(csv.reader(file))[1:])
    return Held(dict(curves), facts, facts.get("status", ""))


def of_tensorboard(root: Path, directory: Path) -> Held:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.api_pb2 import Status
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = EventAccumulator(str(directory), {"scalars": 0, "images": 0}).Reload()
    tags = events.Tags()
    curves = {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in tags["scalars"]}
    contents = events.PluginTagToContent("hparams").values()
    sessions = [HParamsPluginData.FromString(content) for content in contents]
    facts = {
        name: str(value.string_value or value.number_value)
        for session in sessions
        for name, value in session.session_start_info.hparams.items()
    }
    ends = [session.session_end_info.status for session in sessions if session.HasField("session_end_info")]
    ended = "ok" if ends == [Status.STATUS_SUCCESS] else ""
    pictures = [image for tag in tags["images"] for image in events.Images(tag)]
    assert all(image.encoded_image_string.startswith(b"\x89PNG") and image.width for image in pictures)
    return Held(curves, facts, ended, len(pictures))


def of_mlflow(root: Path, directory: Path) -> Held:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root.resolve() / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("compute-accuracy")
    run_id = json.loads((directory / "record.json").read_text())["run_id"]
    [run] = [
        run
        for run in client.search_runs([experiment.experiment_id])
        if run.data.tags["compute_accuracy.run_id"] == run_id
    ]
    names = run.data.metrics
    curves = {
        name: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)] for name in names
    }
    pictures = client.list_artifacts(run.info.run_id, "pictures")
    tags = run.data.tags
    return Held(curves, run.data.params, tags.get("status", ""), len(pictures), run.info.run_name, tags.get("error"))


READ_TRACKIO = """
import json, sys, trackio
from trackio.sqlite_storage import SQLiteStorage
runs = [run for run in trackio.Api().runs("compute-accuracy") if run.id == sys.argv[1]]
logs = [SQLiteStorage.get_logs("compute-accuracy", run.name, run_id=run.id) for run in runs]
print(json.dumps([[run.name, run.config, its] for run, its in zip(runs, logs)], default=str))
"""


def of_trackio(root: Path, directory: Path) -> Held:
    run_id = json.loads((directory / "record.json").read_text())["run_id"]
    command = [sys.executable, "-c", READ_TRACKIO, run_id]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    [[name, config, logs]] = json.loads(printed.splitlines()[-1])
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    ended, pictures = "", 0
    for log in logs:
        ended = log.get("status", ended)
        for key, value in log.items():
            if isinstance(value, int | float) and key != "step":
                curves[key].append((log["step"], value))
            elif isinstance(value, dict) and value.get("_type") == "trackio.image":
                assert (Path(os.environ["TRACKIO_DIR"]) / "media" / value["file_path"]).read_bytes()[:4] == b"\x89PNG"
                pictures += 1
    return Held(dict(curves), {key: str(value) for key, value in config.items()}, ended, pictures, name)


READERS: dict[str, Callable[[Path, Path], Held]] = {
    "csv": of_csv,
    "mlflow": of_mlflow,
    "tensorboard": of_tensorboard,
    "trackio": of_trackio,
}


def check(name: str, root: Path, directory: Path, record: dict[str, Any], rows: list[dict[str, Any]]) -> Held:
    """The mirror's run is the folder's: each row once, at its step, and the outcome."""
    import pytest

    held = READERS[name](root, directory)
    steps = [row["step"] for row in rows]
    points = [step for row in rows for step in row.get("steps", {}).get("step", ())]
    losses = [loss for row in rows for loss in row.get("steps", {}).get("loss", ())]
    for there in ("trainer/global_step", "compute/train_flops", "lr"):
        assert [step for step, _ in held.curves[there]] == sorted({*steps, *points}), there
    assert [step for step, _ in held.curves.get("train/loss_step", ())] == points
    assert [value for _, value in held.curves.get("train/loss_step", ())] == pytest.approx(losses, rel=1e-6)
    for own, there in {"val/top1_err": "val/top1_err", "val/loss": "val/loss"}.items():
        assert [step for step, _ in held.curves[there]] == steps
        values = [value for _, value in held.curves[there]]
        assert values == pytest.approx([row[own] for row in rows], rel=1e-6)  # TensorBoard's are of 32 bits
    if name != "csv":
        [(_, error)] = held.curves["test/top1_err"]
        assert error == pytest.approx(record["metrics"]["test/top1_err"], rel=1e-6)
        assert held.curves["model/macs"][-1][1] == record["complexity"]["macs"]
    assert (held.facts["name"], held.facts["data"]) == (record["name"], record["data"])
    assert held.ended == record["status"]
    return held
