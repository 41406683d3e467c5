"""Runs cells, each in a process group of its own with a clean environment. No rank re-enters Hydra.

One process is plain Python; several are torchrun's. A rank that dies takes its cell down, the cause is recorded, and the next
cell starts.
"""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from benchmarks import record as files
from benchmarks.configuration import Cell, config_hash, differing_keys

ROOT = Path(__file__).resolve().parents[1]
POLL_S = 0.1
STOP_S = 20  # from SIGTERM to SIGKILL
# How long an OpenMP thread spins before it sleeps. ResNeXt-20 8x4d on digits, 2 threads on 2 cores: 45 ms a step alone, as with
# GNU's default; beside a second such process 0.3 s, where the default takes 3.1 s.
SPIN_COUNT = "10000"
# Another launcher's ranks and rendezvous must not be taken for ours.
FOREIGN = re.compile(
    r"^(MASTER_|RANK$|WORLD_SIZE$|LOCAL_|GROUP_|ROLE_|TORCHELASTIC_|TORCHRUN|PL_|SLURM_|SUBMITIT_|OMP_NUM_)"
)


@dataclass(frozen=True)
class Outcome:
    """How a cell ended: ``ok``, ``finished`` (before this call), ``failed``, ``interrupted`` or ``refused`` (not started)."""

    status: str
    error: str | None = None

    @property
    def good(self) -> bool:
        """Whether the cell has its result."""
        return self.status in {"ok", "finished"}


def run_cell(cell: Cell, on_progress: Callable[[dict[str, Any]], None]) -> Outcome:
    """Trains one cell, or returns at once if it is finished; ``on_progress`` gets the content of ``progress.json``.

    Raises:
        KeyboardInterrupt: after the cell has been stopped and recorded as interrupted.
    """
    directory = cell.directory
    refusal = _refusal(cell)
    if refusal is not None:
        return Outcome("refused", refusal)
    record = files.read_json(directory / files.RECORD)
    if record is not None and record["status"] == "ok":
        return Outcome("finished")
    config = deepcopy(cell.config)
    ranks = config["trainer"]["devices"]
    config["cluster"]["threads_per_process"] = config["cluster"]["threads_per_process"] or max(1, cores() // ranks)
    try:
        _start_record(cell, config, record)
        process = _start_process(directory, ranks, config["cluster"]["threads_per_process"])
    except OSError as error:
        return Outcome("refused", f"cannot write to {directory}: {error.strerror}")
    try:
        while process.poll() is None:
            time.sleep(POLL_S)
            progress = files.read_json(directory / files.PROGRESS)
            if progress is not None:
                on_progress(progress)
    except BaseException:
        _stop(process)
        _close_record(directory, "interrupted", "interrupted by Ctrl-C")
        raise
    finally:
        (directory / files.PROGRESS).unlink(missing_ok=True)
    if process.returncode:
        _stop(process)
        _close_record(directory, "failed", _cause(directory, process.returncode))
    record = files.read_json(directory / files.RECORD) or {}
    return Outcome(record.get("status", "failed"), record.get("error"))


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache
def gpus() -> int:
    """GPUs that PyTorch sees, asked of a process of its own: this one stays free of PyTorch."""
    probe = "import torch; print(torch.cuda.device_count())"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else 0


def _refusal(cell: Cell) -> str | None:
    """Why a cell must not start, in one line; None if it may."""
    config, trainer = cell.config, cell.config["trainer"]
    devices, nodes, batch = trainer["devices"], trainer["num_nodes"], config["recipe"]["batch_size"]
    for key, value in {"trainer.devices": devices, "trainer.num_nodes": nodes, "recipe.batch_size": batch}.items():
        if not isinstance(value, int) or value < 1:
            return f"{key} is a whole number from 1, got {value!r}"
    if batch % (devices * nodes):
        fits = [n for n in range(1, batch + 1) if batch % n == 0 and n <= 2 * devices * nodes]
        return f"recipe.batch_size={batch} cannot be divided among {devices * nodes} processes; {fits} would do"
    if trainer["accelerator"] not in {"auto", "cpu", "gpu", "cuda"}:
        return f"trainer.accelerator is auto, cpu, gpu or cuda, got {trainer['accelerator']!r}"
    wants_gpu = trainer["accelerator"] in {"gpu", "cuda"}
    on_gpu = wants_gpu or (trainer["accelerator"] == "auto" and devices > 1 and gpus() > 0)
    available = gpus() if on_gpu else cores()
    if devices > available and (on_gpu or not config["cluster"]["oversubscribe"]):
        kind = "GPUs" if on_gpu else "CPU cores"
        hint = "" if on_gpu else "; cluster.oversubscribe=true allows more processes than cores"
        return f"trainer.devices={devices}, but this machine has {available} {kind}{hint}"
    if trainer["sync_batchnorm"] and not on_gpu:
        return "trainer.sync_batchnorm=true needs several GPUs (PyTorch has no synchronised batch-norm on a CPU)"
    held = cell.directory / files.CONFIG
    if held.exists():
        differing = differing_keys(yaml.safe_load(held.read_text(encoding="utf-8")), config)
        if differing:
            keys = ", ".join(f"{key}: {there!r} there, {here!r} here" for key, (there, here) in differing.items())
            return f"{cell.directory} holds another configuration ({keys}); choose another output_root or move it away"
    return None


def _start_record(cell: Cell, config: dict[str, Any], previous: dict[str, Any] | None) -> None:
    cell.directory.mkdir(parents=True, exist_ok=True)
    (cell.directory / files.FAILURE).unlink(missing_ok=True)
    (cell.directory / files.PROGRESS).unlink(missing_ok=True)
    files.write_atomic(cell.directory / files.CONFIG, yaml.safe_dump(config, sort_keys=False))
    digest = config_hash(config)
    record = {
        "schema": files.SCHEMA,
        "status": "running",
        "error": None,
        "run_id": f"{digest[:12]}-{uuid.uuid4().hex[:8]}",
        "experiment": config["experiment"],
        "data": config["data"]["name"],
        "task": config["data"]["task"],
        "family": config["family"],
        "name": config["name"],
        "recipe": config["recipe"]["name"],
        "seed": config["seed"],
        "departures": cell.departures,
        "config_hash": digest,
        "started": files.now(),
        "finished": None,
        "resumptions": [],
        "wandb": None,
    }
    if previous is not None:
        # The same directory goes on as the same run.
        record |= {key: previous[key] for key in ("run_id", "started", "resumptions") if key in previous}
    files.write_json(cell.directory / files.RECORD, record)


def _start_process(directory: Path, ranks: int, threads: int) -> subprocess.Popen[bytes]:
    environment = {key: value for key, value in os.environ.items() if not FOREIGN.match(key)}
    paths = [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    environment.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    environment |= {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "--monitor-interval=1"]
    torchrun += [f"--shutdown-timeout={STOP_S - 5}"]
    command = [sys.executable, *(torchrun if ranks > 1 else []), "-m", "benchmarks.cell", str(directory)]
    with open(directory / files.LOG, "ab") as log:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def die_with_parent() -> None:
    """Asks Linux to send this process SIGTERM when its parent dies: a killed launcher leaves nothing behind."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the whole group: SIGTERM, and SIGKILL for what is left after ``STOP_S``."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _close_record(directory: Path, status: str, error: str) -> None:
    """The outcome of a cell that could not write it itself, and the first cause where ranks saw only each other's end."""
    record = files.read_json(directory / files.RECORD) or {}
    failure = files.read_json(directory / files.FAILURE)
    if status == "failed" and failure is not None:
        error = failure["error"]
    if record.get("status") == "running" or status == "failed":
        with suppress(OSError):
            record |= {"status": status, "error": error, "finished": files.now()}
            files.write_json(directory / files.RECORD, record)


def _cause(directory: Path, returncode: int) -> str:
    if returncode < 0:
        return _killed(-returncode)
    log = (directory / files.LOG).read_text(encoding="utf-8", errors="replace")
    signals = re.findall(r"exitcode\s*: -(\d+)", log[-20_000:])
    if signals:
        return _killed(int(signals[-1]))
    lines = [line for line in log.splitlines() if line.strip()]
    return f"exit code {returncode}: {lines[-1].strip() if lines else 'no output'}"


def _killed(number: int) -> str:
    hint = " (out of memory?)" if number == signal.SIGKILL else ""
    return f"killed by {signal.Signals(number).name}{hint}"
