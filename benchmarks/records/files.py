"""The files of a run: written atomically, read back by everything else. The local record is the truth."""

import errno
import hashlib
import io
import json
import math
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from benchmarks.records.record import Restart, to_json
from benchmarks.units import one_line

FORECASTS = "forecasts.json"

DEEPEST = 4000  # levels of a configuration; a run writes about ten
CONFIG_VALUES, CONFIG_DEPTH = 100_000, 50  # at most; YAML's aliases make endless ones of a few bytes
GOES_ON = "the same command goes on from its last checkpoint"  # of a run that ended before its time
SWEEPS = "sweeps"  # folder of an output root: the lists of what was asked for
PICTURES, CHECKPOINTS = "pictures", "checkpoints"  # folders of a run
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


def below(root: Path, path: str | Path) -> str:
    """Return a path relative to a folder, as ``os.path.relpath``, which takes long for one that is written as below it."""
    start, text = os.fspath(root) + os.sep, os.fspath(path)
    return text.removeprefix(start) if text.startswith(start) else os.path.relpath(path, root)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checkpoint_of(run: Path, name: str) -> Path:
    """Return a run's checkpoint, ``last`` or ``best``. Raises FileNotFoundError where there is none."""
    path = run / CHECKPOINTS / f"{name}.ckpt"
    if not path.is_file():
        raise FileNotFoundError(f"{run} holds no {CHECKPOINTS}/{path.name}: RUN is the folder of a trained run")
    return path


def weights_of_run(path: Path) -> str:
    """Return where the weights of the run in a folder are, in words; empty where there are none."""
    last = path / CHECKPOINTS / "last.ckpt"
    return f"a run's folder, whose weights are {last}" if last.is_file() else ""


def write_atomic(path: Path, content: str | memoryview | Iterable[str], durable: bool = True) -> None:
    """Write a file that is either the old one or the new one, never a part (temporary file, fsync, rename).

    Args:
        content: of text the pieces, too, of which each is written before the next one is made.

    Raises:
        OSError: it cannot be written; it names ``path``, which is as before.
    """
    pieces = [content] if isinstance(content, str | memoryview) else content
    # Random, as processes of two machines or containers may have one number.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "wb") as file:
            for piece in pieces:
                file.write(piece.encode() if isinstance(piece, str) else piece)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable:
            _sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error  # not the temporary file's name
        raise


def _sync_folder(folder: Path) -> None:
    """Wait until a rename in ``folder`` is on disk too; some network file systems cannot."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Mapping[str, Any], durable: bool = True) -> None:
    """``write_atomic`` of JSON; a number that is not finite becomes null, which every reader understands."""
    write_atomic(path, json.dumps(_finite(content), indent=1, ensure_ascii=False) + "\n", durable)


def read_bytes(path: str | Path) -> bytes:
    """Return the content of a file.

    Raises:
        OSError: it cannot be read, or is no file: a FIFO in its place would keep its reader waiting for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a file", os.fspath(path))
        return io.FileIO(descriptor, closefd=False).readall()
    finally:
        os.close(descriptor)


def write_config(directory: Path, config: Mapping[str, Any]) -> None:
    """Write the configuration of the run in ``directory``."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml's takes a quarter of the time
    write_atomic(directory / CONFIG, yaml.dump(config, Dumper=dumper, sort_keys=False))


def read_config(directory: Path, needed: Mapping[str, type] = MappingProxyType({})) -> dict[str, Any]:
    """Return the configuration of the run in ``directory``.

    Args:
        needed: dotted keys that it must have, and the types of their values.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not the YAML of a mapping with these keys.
    """
    path = directory / CONFIG
    try:
        written = read_bytes(path)
        # libyaml composes by recursion, and Python ends where its stack does. A level takes a bracket or a column.
        if written.count(b"[") + written.count(b"{") + max(map(len, written.splitlines()), default=0) > DEEPEST:
            raise ValueError("nested too deep")
        content = yaml.load(written, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        _check_size(content)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ValueError(f"{path} is damaged: not the YAML that a run writes") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds {'nothing' if content is None else 'no mapping of keys'}")
    for key, kind in needed.items():
        value: Any = content
        for word in key.split("."):
            value = value.get(word) if isinstance(value, dict) else None
        if not isinstance(value, kind):
            raise ValueError(f"{path} is damaged: {key} must be a {kind.__name__}, got {one_line(repr(value))[:80]}")
    return content


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the content of a JSON object, or None where there is no readable one."""
    try:
        content = json.loads(read_bytes(path))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def amend(directory: Path, status: str, error: str | None) -> None:
    """Write a run's outcome where its ranks could not, or know less of it. There is no progress any more.

    Where nothing can be written, as to a full disk, the record stays as it is: the launcher has other trials to look after.
    """
    with suppress(OSError):
        (directory / PROGRESS).unlink(missing_ok=True)
        record = read_json(directory / RECORD)
        if record is not None and (record.get("status"), record.get("error")) != (status, error):
            outcome = {"status": status, "error": error, "finished": record.get("finished") or now()}
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
    with open(path, "a+b") as file:
        if end := file.seek(0, os.SEEK_END):
            file.seek(end - 1)
            if file.read() != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write((json.dumps(_finite(row)) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def last_row(path: Path) -> dict[str, Any] | None:
    """Return the last whole row of a history, or None. Raises ValueError where it is damaged."""
    if not path.exists():
        return None
    lines = read_bytes(path).split(b"\n")[:-1]
    try:
        row = json.loads(lines[-1]) if lines else None
    except (ValueError, RecursionError):
        row = ()
    if row is not None and not (isinstance(row, dict) and isinstance(row.get("step"), int)):
        raise ValueError(f"{path} is damaged: its last line is no row; move the run's folder away to train again")
    return row


def last_lines(path: Path, most: int = 1) -> list[str]:
    """Return up to ``most`` lines from the end of a log that are not empty, printable; none where it cannot be read."""
    try:
        text = read_bytes(path).decode(errors="replace")
    except OSError:
        return []
    return [one_line(line) for line in text.splitlines() if line.strip()][-most:]


def pictures(directory: Path) -> list[Path]:
    """Return the run's pictures, PNG: files of its own, no links to others."""
    folder = directory / PICTURES
    try:
        entries = [] if folder.is_symlink() else list(os.scandir(folder))
    except OSError:  # there is none
        return []
    return sorted(Path(one.path) for one in entries if one.name.endswith(".png") and one.is_file(follow_symlinks=False))


def _check_size(content: Any) -> None:
    waiting, count = [(content, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if count > CONFIG_VALUES or depth > CONFIG_DEPTH:
            raise ValueError("too large")
        below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        waiting += [(one, depth + 1) for one in below]


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
