"""The files of a run: written atomically, read back by everything else. The local record is the truth."""

import json
import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.records.record import Restart, to_json

FORECASTS = "forecasts.json"

HEAD_BYTES = 4096
SWEEPS = "sweeps"  # folder of an output root: the lists of what was asked for
CONFIG, RECORD, HISTORY, PROGRESS, FAILURE, LOG, LAYERS = (
    "config.yaml",
    "record.json",
    "history.jsonl",
    "progress.json",
    "failure.json",
    "log.txt",
    "layers.csv",
)


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_atomic(path: Path, content: str | memoryview, durable: bool = True) -> None:
    """Write a file that is either the old one or the new one, never a part (temporary file, fsync, rename)."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Mapping[str, Any], durable: bool = True) -> None:
    """``write_atomic`` of JSON; a number that is not finite becomes null, which every reader understands."""
    write_atomic(path, json.dumps(_finite(content), indent=1, ensure_ascii=False) + "\n", durable)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the content of a JSON object, or None where there is no readable one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def read_head(path: Path) -> dict[str, Any] | None:
    """Return which run a record is of, and its status: all that stands before the hash of the configuration."""
    try:
        with open(path, "rb") as file:
            head, separator, _ = file.read(HEAD_BYTES).partition(b'"config_hash"')
        return json.loads(head.rstrip().rstrip(b",") + b"}") if separator else read_json(path)
    except (OSError, ValueError):
        return None


def amend(directory: Path, status: str, error: str | None) -> None:
    """Write a run's outcome where its ranks could not, or know less of it. There is no progress any more."""
    (directory / PROGRESS).unlink(missing_ok=True)
    record = read_json(directory / RECORD)
    if record is not None and (record["status"], record["error"]) != (status, error):
        outcome = {"status": status, "error": error, "finished": record["finished"] or now()}
        write_json(directory / RECORD, record | outcome)


def reopen(directory: Path, error: str | None) -> dict[str, Any]:
    """Record that a trial's ranks start again after ``error``, None for the one in the record; return the new record."""
    record = read_json(directory / RECORD) or {}
    restart = Restart(at=now(), after=error or record.get("error") or "a rank was lost")
    record["restarts"] = [*record.get("restarts", ()), to_json(restart)]
    record |= {"status": "running", "error": None, "finished": None}
    write_json(directory / RECORD, record)
    (directory / FAILURE).unlink(missing_ok=True)
    return record


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append one JSON line and wait until it is on disk; a torn last line of a killed writer is cut off first."""
    if path.exists() and (size := path.stat().st_size):
        with open(path, "r+b") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < size:
                file.truncate(whole)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(_finite(row)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def last_row(path: Path) -> dict[str, Any] | None:
    """Return the last whole row of a history, or None."""
    if not path.exists():
        return None
    lines = path.read_bytes().split(b"\n")[:-1]
    return json.loads(lines[-1]) if lines else None


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
