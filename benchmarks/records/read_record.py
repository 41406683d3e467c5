"""Reads and checks the record of one run. Imports no torch."""

import json
import marshal
from typing import Any

from benchmarks.records import files, measured_speed
from benchmarks.records.record import SCHEMA, wrong_value

STATUSES = ("ok", "running", "failed", "interrupted", "preempted")
Parts = dict[tuple[str, bytes], Any]  # of records: by name and content
_REQUIRED: dict[str, type] = {"status": str, "data": str, "family": str, "name": str, "recipe": str, "seed": int}


def read_record(path: str, known: Parts) -> dict[str, Any]:
    """Return the checked content of a record.json.

    Args:
        known: parts of other records, by name and content: runs of a sweep share most, which are checked and held once.

    Raises:
        OSError: it cannot be read.
        ValueError: it is torn, or not a run's record of this schema.
    """
    try:
        record = json.loads(files.read_bytes(path))
    except (ValueError, RecursionError):
        raise ValueError("not valid JSON (torn?); run it again or remove the folder") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        schema = record.get("schema") if isinstance(record, dict) else None
        if isinstance(schema, int):
            raise ValueError(
                f"a record of schema {schema!r:.80}, made by another version; this one reads schema {SCHEMA}"
            )
        raise ValueError(f"not a run's record of schema {SCHEMA} (schema is {schema!r:.80})")
    if "departures" in record:  # what records called the overrides before this name
        record["overrides"] = record.pop("departures")
    for key, kind in _REQUIRED.items():
        if not isinstance(record.get(key), kind) or isinstance(record[key], bool):
            raise ValueError(f"{key} must be a {kind.__name__}, got {record.get(key)!r:.80}")
    if record["status"] not in STATUSES:
        raise ValueError(f"status must be one of {', '.join(STATUSES)}, got {record['status']!r:.80}")
    if not isinstance(record.get(measured_speed.BLOCK), dict | None):  # which no run writes
        raise ValueError(f"{measured_speed.BLOCK} must be an object, got {type(record[measured_speed.BLOCK]).__name__}")
    checked, parts = {}, {}
    for key, value in record.items():
        if isinstance(value, (dict, list)):
            # Unlike equality, marshal tells true from 1; its version 2 writes equal content alike.
            part = key, marshal.dumps(value, 2)
            if part in known:
                record[key] = known[part]
                continue
            parts[key] = part
        checked[key] = value
    if (wrong := wrong_value(checked)) is not None:
        raise ValueError(wrong)
    known.update((part, record[key]) for key, part in parts.items())
    return record
