"""Open the record of a run, and move the run away that it replaces."""

import errno
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Any

from benchmarks.config.trial import config_hash, config_hash_without_seed
from benchmarks.records import files
from benchmarks.records.files import RECORD
from benchmarks.records.record import Record, from_json, to_json
from benchmarks.units import plural

SUPERSEDED = "superseded"
JOB = "slurm_job.json"  # the Slurm job that was submitted for a trial
OF_ALL_STARTS = ("run_id", "started", "resumptions", "restarts", "code")  # what a resumed run keeps of its record


def new_record(config: dict[str, Any], overrides: dict[str, Any], previous: dict[str, Any] | None) -> Record:
    """Return the record of a run that starts, or that is resumed where ``previous`` is its own."""
    digest = config_hash(config)
    # A resumed run stays with the seeds that the older version has finished, whose records say no such hash.
    of_older_version = previous is not None and "config_hash_without_seed" not in previous
    # That which `wandb agent` has given to the run of this process; a second run has its own.
    id_of_agent = os.environ.pop("WANDB_RUN_ID", None) if os.environ.get("WANDB_SWEEP_ID") else None
    record = Record(
        status="running",
        error=None,
        run_id=id_of_agent or f"{digest[:12]}-{uuid.uuid4().hex[:8]}",
        experiment=config["experiment"],
        row=config["row"],
        data=config["data"]["name"],
        task=config["data"]["task"],
        family=config["family"],
        name=config["name"],
        recipe=config["recipe"]["name"],
        seed=config["seed"],
        overrides=overrides,
        config_hash=digest,
        started=files.now(),
        finished=None,
        resumptions=[],
        restarts=[],
        wandb=None,
        notes=_notes(config) or None,
        look=config.get("about", {}).get("look"),
        config_hash_without_seed=None if of_older_version else config_hash_without_seed(config),
    )
    earlier = {key: previous[key] for key in OF_ALL_STARTS if key in previous} if previous else {}
    try:
        return from_json(Record, to_json(record) | earlier)
    except (TypeError, AttributeError):  # damaged, or of another version: what is known of earlier starts is lost
        return record


def _notes(config: dict[str, Any]) -> list[str]:
    """Say which defaults serve a network and a data set that have no such file of their own, and that a run is no result."""
    pair = f"{config['family']} has none of its own for {config['data']['name']}"
    notes = [f"the default {kind}, {name}: {pair}" for kind, name in config.get("defaulted", {}).items()]
    if (batches := config["trainer"].get("limit_train_batches")) is not None:
        notes.append(
            f"debug: trained on {plural(batches, 'batch', 'batches')} of each epoch (trainer.limit_train_batches); its "
            "figures compare with no other run's"
        )
    return notes


def supersede(directory: Path, output_root: str, record: dict[str, Any]) -> None:
    """Move a run's files to ``<output_root>/superseded/…/<run_id>``, where no report sees them; its locks stay, and what names
    the Slurm job that replaces it.

    The record goes last: as long as it is there, a call after a kill sees the old run and moves the rest of it too.
    """
    run_id = re.sub(r"[^\w-]", "-", str(record.get("run_id", "unknown")))[:80]
    place = Path(output_root, SUPERSEDED, directory.relative_to(output_root), run_id)
    place.mkdir(parents=True, exist_ok=True)
    for path in sorted(directory.iterdir(), key=lambda path: path.name == RECORD):
        if path.suffix != ".lock" and path.name != JOB:
            _move(path, place / path.name)


def _move(path: Path, target: Path) -> None:
    """Move a file or folder, to another disk too, as a data set's folder may be a link to one; what a kill has left of it is
    moved by another call. Raises OSError."""
    try:
        os.replace(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        if path.is_dir() and not path.is_symlink():
            target.mkdir(exist_ok=True)
            for part in path.iterdir():
                _move(part, target / part.name)
            path.rmdir()
        else:
            shutil.copy2(path, target, follow_symlinks=False)
            path.unlink()
