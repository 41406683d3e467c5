"""run.py as a user starts it, and what it leaves."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
THREADS = "cluster.threads_per_process"
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")} | {"WANDB_MODE": "offline"}


def start(*arguments: str, root: Path) -> subprocess.Popen[str]:
    """run.py, with one thread unless told otherwise: two threads beside other tests took twice the processor time."""
    threads = [] if any(argument.startswith(f"{THREADS}=") for argument in arguments) else [f"{THREADS}=1"]
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *arguments, *threads, f"output_root={root}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root.parent, env=CLEAN,
        preexec_fn=_hear,
    )  # fmt: skip


def _hear() -> None:
    """A shell's background job ignores Ctrl-C, and under nohup the end of a terminal; so would the tests' processes."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def run(*arguments: str, root: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    process = start(*arguments, root=root)
    out, err = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@cache
def _imported_once() -> None:
    """Starts the server that trials are forked from: it serves every ``run_here`` of this process of tests."""
    from benchmarks.launch.process_group import preload

    nets = ("lightning_modules.classifier", "lightning_modules.nets", "benchmarks.training.pictures")
    preload(["benchmarks.tracking.mirror", "datamodules.in_memory", "datamodules.sources.digits", *nets])
    forkserver.ensure_running()


def run_here(*arguments: str, root: Path) -> subprocess.CompletedProcess[str]:
    """run.py in this process, and its trials of one thread in processes of their own: nothing is imported again.

    For what does not depend on the process of the launcher itself, on its signals or its terminal.
    """
    import run as run_py

    _imported_once()
    ends = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    handlers = {number: signal.getsignal(number) for number in ends}
    out, err = io.StringIO(), io.StringIO()
    offline = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")} | {
        "WANDB_MODE": "offline"
    }
    one_thread = f"{THREADS}=1"
    with (
        mock.patch.dict(os.environ, offline, clear=True), contextlib.chdir(root.parent),
        contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
    ):  # fmt: skip
        try:
            code = run_py.main([*arguments, one_thread, f"output_root={root}"])
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def in_python(program: str) -> str:
    """Run a program in a process of one thread, as the command line is; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def records(root: Path) -> dict[str, dict]:
    found = [json.loads(path.read_text()) for path in root.glob("*/*/*/seed*/record.json")]
    return {record["name"]: record for record in found}


def rows(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]


def inspect(folder: Path) -> list[dict]:
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=CLEAN | {"WANDB_ERROR_REPORTING": "false"}, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
