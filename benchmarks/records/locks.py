"""Locks on files, which the kernel releases when their holder dies, on one machine and over NFS."""

import fcntl
import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from benchmarks.records.files import now, read_json, write_json

LAUNCHER, RANKS = "launcher.lock", "ranks.lock"


class Lock:
    """A held lock; its file stays and says who took it.

    Args:
        descriptor: of the open, locked file.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor: int | None = descriptor

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """The exclusive lock, or None where somebody holds it."""
        content = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": now()})
        try:
            return cls._open(path, fcntl.LOCK_EX | fcntl.LOCK_NB, content)
        except BlockingIOError:
            return None

    @classmethod
    def share(cls, path: Path) -> Self:
        """A shared lock, held with others; waits for the holder of an exclusive one."""
        return cls._open(path, fcntl.LOCK_SH)

    @classmethod
    def wait_for(cls, path: Path) -> Self:
        """The exclusive lock, once nobody else holds it."""
        return cls._open(path, fcntl.LOCK_EX)

    @classmethod
    def _open(cls, path: Path, kind: int, content: str | None = None) -> Self:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, kind)
            if content is not None:
                os.truncate(descriptor, 0)
                os.write(descriptor, content.encode())
        except BaseException:
            os.close(descriptor)  # else it would hold the lock
            raise
        return cls(descriptor)

    def release(self) -> None:
        """Lets go; once more does nothing."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def update_json(path: Path, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """Write what ``change`` makes of a JSON object, empty where there is none, while no other process does so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = Lock.wait_for(path.with_name(f".{path.name}.lock"))
    try:
        write_json(path, change(read_json(path) or {}))
    finally:
        lock.release()


def held(path: Path) -> bool:
    """Whether anybody holds the lock; of a file that may only be read, whether anybody holds it exclusively."""
    # Over NFS an exclusive lock needs a file that is open for writing (flock(2)).
    mode, kind = (os.O_RDWR, fcntl.LOCK_EX) if os.access(path, os.W_OK) else (os.O_RDONLY, fcntl.LOCK_SH)
    try:
        descriptor = os.open(path, mode)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def holder(path: Path) -> dict[str, Any]:
    """Host, pid and time of who took the lock last; empty where that is not known."""
    return read_json(path) or {}
