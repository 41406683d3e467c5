"""Opens the record of a run, and puts away the run that it replaces."""

import shutil
import uuid
from pathlib import Path
from typing import Any

from benchmarks.config.trial import config_hash
from benchmarks.records import files

SUPERSEDED = "superseded"


def new_record(config: dict[str, Any], overrides: dict[str, Any], previous: dict[str, Any] | None) -> dict[str, Any]:
    """The record of a run that starts, or goes on where ``previous`` is its own."""
    digest = config_hash(config)
    record = {
        "schema": files.SCHEMA,
        "status": "running",
        "error": None,
        "run_id": f"{digest[:12]}-{uuid.uuid4().hex[:8]}",
        "experiment": config["experiment"],
        "row": config["row"],
        "data": config["data"]["name"],
        "task": config["data"]["task"],
        "family": config["family"],
        "name": config["name"],
        "recipe": config["recipe"]["name"],
        "seed": config["seed"],
        "overrides": overrides,
        "config_hash": digest,
        "started": files.now(),
        "finished": None,
        "resumptions": [],
        "restarts": [],
        "wandb": None,
    }
    kept = ("run_id", "started", "resumptions", "restarts", "code")
    return record | {key: previous[key] for key in kept if previous is not None and key in previous}


def supersede(directory: Path, output_root: str, record: dict[str, Any]) -> None:
    """Moves a run's files to ``<output_root>/superseded/…/<run_id>``, where no report sees them; its locks stay."""
    place = Path(output_root, SUPERSEDED, directory.relative_to(output_root), str(record.get("run_id", "unknown")))
    place.mkdir(parents=True, exist_ok=True)
    for path in directory.iterdir():
        if path.suffix != ".lock":
            shutil.move(path, place / path.name)
