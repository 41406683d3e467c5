"""The processes of one cell, in a session of their own with a clean environment.

On a CPU they are forked from a server that has imported everything and computed nothing: a cell then costs half a second where
a fresh interpreter takes six. On GPUs, and where there is no fork, they are fresh interpreters.
"""

import ctypes
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# How long an OpenMP thread spins before it sleeps. ResNeXt-20 8x4d on digits, 2 threads on 2 cores: 45 ms a step alone, as with
# GNU's default; beside a second such process 0.3 s, where the default takes 3.1 s.
SPIN_COUNT = "10000"
# Another launcher's ranks and rendezvous must not be taken for ours.
FOREIGN = re.compile(
    r"^(MASTER_|RANK$|WORLD_SIZE$|LOCAL_|GROUP_|ROLE_|TORCHELASTIC_|TORCHRUN|PL_|SLURM_|SUBMITIT_|OMP_NUM_)"
)


DEAF_TO = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class Node:
    """This machine's place in a cell over several.

    Attributes:
        rank: 0 keeps the record.
        count: machines.
        endpoint: ``host:port`` of the rendezvous, on machine 0.
        run_id: the same on all machines, another one for each start of the cell.
        address: by which the others reach this machine; None lets torch look it up.
        restarts: of all ranks after one was lost.
    """

    rank: int
    count: int
    endpoint: str
    run_id: str
    address: str | None = None
    restarts: int = 0


class ProcessGroup:
    """Starts the ranks of the cell in ``directory``.

    Args:
        directory: holds ``config.yaml``.
        ranks: processes on this machine.
        log: gets what they print, appended.
        fork: from the server; else fresh interpreters.
        threads: of each rank.
        gpus: the devices that they may see; None for all.
        node: of a cell over several machines.
    """

    def __init__(
        self,
        directory: Path,
        ranks: int,
        log: Path,
        fork: bool,
        threads: int,
        gpus: Sequence[str] | None = None,
        node: Node | None = None,
    ) -> None:
        environment = clean_environment(threads, gpus)
        self._forked: BaseProcess | None = None
        self._fresh: subprocess.Popen[bytes] | None = None
        if fork:
            _start_server()
            self._forked = _server().Process(target=_in_fork, args=(directory, ranks, log, node, environment))
            self._forked.start()
            self.pid = self._forked.pid or 0
            return
        program = ["-m", "benchmarks.cell", str(directory)]
        if ranks > 1 or node is not None:
            place = [f"{key}={value}" for key, value in vars(node).items() if value is not None] if node else []
            program = ["-m", "benchmarks.agent", str(directory), str(ranks), *place]
        with open(log, "ab") as file:
            self._fresh = subprocess.Popen(
                [sys.executable, *program],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_as_child,
            )
        self.pid = self._fresh.pid

    def poll(self) -> int | None:
        """The exit code of the first process, negative for a signal; None while it runs."""
        return self._fresh.poll() if self._fresh else self._forked.exitcode if self._forked else None

    def signal(self, number: int) -> None:
        """Sends a signal to every process of the group that is left."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            with suppress(ProcessLookupError):  # it may not have its session yet
                if self.poll() is None:
                    os.kill(self.pid, number)


def can_fork() -> bool:
    """Whether processes can be forked safely from one that has imported PyTorch: on Linux."""
    return sys.platform == "linux"


def preload(modules: Sequence[str]) -> None:
    """Says, before the first cell starts, what the server imports once for all cells."""
    _server().set_forkserver_preload(["benchmarks.agent", *modules])


def die_with_parent() -> None:
    """Asks Linux to send this process SIGTERM when its parent dies: a killed launcher leaves nothing behind."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


@lru_cache
def _start_server() -> None:
    """Starts the server deaf: a scheduler signals every process of a job, and without its server a child looks dead."""
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, signal.SIG_IGN) for number in DEAF_TO}
        forkserver.ensure_running()
        for number, handler in before.items():
            signal.signal(number, handler)


@lru_cache
def _server() -> ForkServerContext:
    # The server takes its environment from here when it starts; the children get theirs from the caller.
    os.environ["PYTHONPATH"] = clean_environment(1, None)["PYTHONPATH"]
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    return multiprocessing.get_context("forkserver")


def clean_environment(threads: int, gpus: Sequence[str] | None = None) -> dict[str, str]:
    """This process's environment without another launcher's ranks, with ``threads`` and the ``gpus`` to be seen."""
    environment = {key: value for key, value in os.environ.items() if not FOREIGN.match(key)}
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path and path != str(ROOT)]
    environment.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    environment |= {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *paths]),
        "PYTHONUNBUFFERED": "1",
    }
    return environment if gpus is None else environment | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}


def _as_child() -> None:
    die_with_parent()
    for ignored in (signal.SIGUSR1, signal.SIGUSR2):  # their default would end the agent; the ranks set their own
        signal.signal(ignored, signal.SIG_IGN)


def _in_fork(directory: Path, ranks: int, log: Path, node: Node | None, environment: dict[str, str]) -> None:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _as_child()
    # The server ends with the last holder of this pipe (CPython 3.11 gives it to every child), and its end is our signal that
    # the launcher has died.
    os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
    os.environ.clear()
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if ranks > 1 or node is not None:
        from benchmarks.agent import run_ranks

        sys.exit(run_ranks(directory, ranks, node, fork=True))
    from benchmarks.cell import main

    sys.exit(main(directory))
