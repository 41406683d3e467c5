"""The process of a mirror beside rank 0: how it is started, told to finish, and ended."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

LOOK_S = 1.0  # between looks at the history
FINISH = b"finish\n"


def start(module: str, path: Path, *arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
    """Start ``python -m benchmarks.tracking.MODULE PATH …`` in a session of its own, out of reach of a trial's signals."""
    # Another client's service would outlive the process.
    environment = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    command = [sys.executable, "-m", f"benchmarks.tracking.{module}", str(path), *arguments]
    return subprocess.Popen(command, env=environment, start_new_session=True, **streams)


def tell(process: subprocess.Popen[bytes], line: bytes) -> None:
    """Write a line to a process, which may have ended before."""
    with suppress(OSError):
        os.write(process.stdin.fileno(), line)  # type: ignore[union-attr]


def finish(process: subprocess.Popen[bytes], limit_s: float, problem: str, remedy: str) -> None:
    """Tell a process that the run's record is closed, and ``end`` it."""
    tell(process, FINISH)
    end(process, limit_s, problem, remedy)


def end(process: subprocess.Popen[bytes], limit_s: float, problem: str, remedy: str) -> None:
    """Wait for a process for ``limit_s`` seconds; end it and its children then, with ``problem`` and ``remedy`` in a line."""
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        print(f"{problem} within {limit_s:g} s; {remedy}", file=sys.stderr)
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children at once."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ignore_signals() -> None:
    """Leave the end of this process to rank 0."""
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
