"""The processes of one trial, in a session of their own with a clean environment.

On a CPU they are forked from a server that has imported everything and computed nothing: a trial then costs half a second where
a fresh interpreter takes six. On GPUs, and where there is no fork, they are fresh interpreters.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.launch.process import (
    AGENT,
    PRELOADED,
    REMEMBER,
    Node,
    can_fork,
    die_with_parent,
)
from benchmarks.records.clean_environment import clean_environment
from benchmarks.records.code_version import training_sha256

DEAF_TO = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
SERVER_LOST = 255  # what multiprocessing says of a child whose server can tell no more how it ended


class ProcessGroup:
    """Starts the ranks of the trial in ``directory``.

    Args:
        directory: holds ``config.yaml``.
        ranks: processes on this machine.
        log: gets what they print, appended.
        fork: from the server; else fresh interpreters.
        threads: of each rank.
        gpus: the devices that they may see; None for all.
        node: of a trial over several machines.

    Raises:
        OSError: no process can be started, or what a trial imports cannot be imported.
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
        self._process: BaseProcess | subprocess.Popen[bytes]
        if fork:
            _start_server()
            self._process = _server().Process(target=_in_fork, args=(directory, ranks, log, node, environment))
            try:
                self._process.start()
            except EOFError as error:  # the server has ended while it imported
                raise OSError(_import_error(environment)) from error
            self.pid = self._process.pid or 0
            return
        place = [json.dumps(vars(node))] if node else []
        with open(log, "ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.launch.agent", str(directory), str(ranks), *place],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_as_child,
            )
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit code of the first process, negative for a signal; None while it runs."""
        return self._process.exitcode if isinstance(self._process, BaseProcess) else self._process.poll()

    def signal(self, number: int) -> None:
        """Sends a signal to every process of the group that is left."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            with suppress(ProcessLookupError):  # it may not have its session yet
                if self.poll() is None:
                    os.kill(self.pid, number)


def _import_error(environment: Mapping[str, str]) -> str:
    """Say why what a trial imports cannot be imported, by importing it once more in a fresh interpreter."""
    program = [sys.executable, "-c", "import benchmarks.launch.agent"]
    done = subprocess.run(program, env=dict(environment), capture_output=True, text=True, errors="backslashreplace")
    message = (done.stderr.strip().splitlines() or ["the server of processes has ended"])[-1]
    if "torchvision" in message:
        message += (
            f": the torchvision here does not fit torch {version('torch')}; install the build that does or, as timm's networks "
            "alone need it, pip uninstall torchvision"
        )
    return message


def preload(modules: Sequence[str]) -> None:
    """Says, before the first trial starts, what the server imports once for all trials, where there is one."""
    if can_fork():
        training_sha256()  # kept: what this process compares with is what the server is about to import
        os.environ[PRELOADED] = " ".join(modules)
        _server().set_forkserver_preload([AGENT, REMEMBER])


@lru_cache
def _start_server() -> None:
    """Starts the server deaf: a terminal or a scheduler signals all processes, and without its server a child looks dead."""
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, signal.SIG_IGN) for number in DEAF_TO}
        forkserver.ensure_running()
        for number, handler in before.items():
            signal.signal(number, handler)


@lru_cache
def _server() -> ForkServerContext:
    # The server takes its environment from here when it starts; the children get theirs from the caller.
    environment = clean_environment(1)
    of_server = ("PYTHONPATH", "PYTHONSAFEPATH", "GOMP_SPINCOUNT", "TMPDIR")
    os.environ |= {key: environment[key] for key in of_server if key in environment}
    tempfile.tempdir = None  # it is taken from TMPDIR anew
    return multiprocessing.get_context("forkserver")


def _as_child() -> None:
    die_with_parent()
    for ignored in (signal.SIGUSR1, signal.SIGUSR2):  # their default would end the agent; the ranks set their own
        signal.signal(ignored, signal.SIG_IGN)


def _in_fork(directory: Path, ranks: int, log: Path, node: Node | None, environment: dict[str, str]) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
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
    # The server's own streams may be without UTF-8, or closed.
    sys.stdout, sys.stderr = (
        open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        for number in (1, 2)
    )
    from benchmarks.launch.agent import run_ranks

    sys.exit(run_ranks(directory, ranks, node, fork=True))
