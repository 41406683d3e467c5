"""Runs one trial on this machine: its processes, their limits, restarts, and the record when they cannot write it.

A trial is driven by ``poll``, so that one thread watches many. No rank re-enters Hydra. A rank that dies takes its trial down,
the cause is recorded, and the next trial starts.
"""

import math
import os
import signal
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import units
from benchmarks.config.trial import Trial
from benchmarks.launch.checks import is_finished, refusal
from benchmarks.launch.new_record import new_record, supersede
from benchmarks.launch.process import Node, can_fork
from benchmarks.launch.process_group import SERVER_LOST, ProcessGroup
from benchmarks.records import files
from benchmarks.records.code_version import made_by_other_code
from benchmarks.records.hardware import cores, on_gpu
from benchmarks.records.locks import LAUNCHER, RANKS, Lock, held, holder
from benchmarks.records.progress import read_progress
from benchmarks.records.record import to_json
from benchmarks.units import FULL_DISK, full_disk

POLL_S = 0.05
LONGEST_POLL_S = 5.0  # between two polls of a launcher that ran all the time; the page is written between some
SAVE_S = 16  # from the request to save and stop to SIGTERM
STOP_S = 20  # from SIGTERM to SIGKILL
JOIN_S = 120  # that the other machines wait for machine 0
LOOK_S = 1.0  # between their looks for it
INTERRUPTED = 128 + signal.SIGTERM  # a rank's exit code when it was asked to stop


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        status: ``ok``, ``finished`` (before this call), ``failed``, ``interrupted``, ``preempted`` (goes on by itself),
            ``refused`` (not started) or ``busy`` (another launcher has it).
        error: the cause in one line.
    """

    status: str
    error: str | None = None

    @property
    def good(self) -> bool:
        """Whether the trial has its result."""
        return self.status in {"ok", "finished"}


class Silence:
    """The time for which a trial has given no sign of life while its launcher ran.

    Time in which the launcher itself did not run (a laptop that sleeps, a stopped process) is none of the trial's silence, and
    the clocks of a file server and of this machine are not compared.
    """

    def __init__(self) -> None:
        self._sign = -math.inf
        self._looked = time.monotonic()
        self._seconds = 0.0

    def seconds(self, sign: float) -> float:
        """Return the seconds of silence so far; ``sign`` is the time of the last sign of life, by any clock."""
        now = time.monotonic()
        self._seconds = self._seconds + min(now - self._looked, LONGEST_POLL_S) if sign == self._sign else 0.0
        self._sign, self._looked = sign, now
        return self._seconds


class TrialJob:
    """A trial that this launcher runs.

    Args:
        trial: to run; ``refusal`` has let it through.
        lock: on its directory, held until it has ended.
        gpus: the devices that it may see; None for all.
        node: this machine's place where the trial has several; all but the first leave the record alone.
    """

    def __init__(
        self, trial: Trial, lock: Lock | None, gpus: Sequence[str] | None = None, node: Node | None = None
    ) -> None:
        self.directory = trial.directory
        self.gpus = gpus
        self.node = node
        self._lock = lock
        self._keeps_record = node is None or node.rank == 0
        self._log = files.LOG if node is None or node.rank == 0 else f"log.node{node.rank}.txt"
        self._config = deepcopy(trial.config)
        self._overrides = trial.overrides
        self._limits = self._config["launch"]
        self._ranks = self._config["trainer"]["devices"]
        # A trial over several machines is restarted by torch's agents, which keep the machines together.
        self._retries = 0 if node else self._limits["retries"]
        cluster = self._config["cluster"]
        share = cores() // (self._ranks * (self._limits["workers"] if gpus is None else 1))
        cluster["threads_per_process"] = cluster["threads_per_process"] or max(1, share)
        self._group: ProcessGroup | None = None
        self._asked = self._waiting = time.monotonic()
        self._silence = Silence()
        self._stopping: tuple[str, str] | None = None
        self._signals: list[tuple[float, int]] = []  # when to send what, soonest first
        self._first, self._looked_for_first = False, -math.inf
        self._begun = not self._keeps_record

    def poll(self) -> Outcome | None:
        """Looks after the trial; its outcome once it has ended."""
        if self._group is None:
            return self._start()
        code = self._group.poll()
        if code is None:
            self._watch(self._group)
            return None
        self._group.signal(signal.SIGKILL)
        outcome = self._ended(code)
        # Not the program's own error, which would come again.
        known = (files.read_json(self.directory / files.FAILURE) or {}).get("known")
        if outcome.status == "failed" and self._retries and not known:
            self._retries -= 1
            try:
                self._restart(outcome.error or "")
                return None
            except OSError as error:
                cause = _not_written(self.directory, error)
                outcome = self._finish("failed", f"{outcome.error}; it could not be started again: {cause}")
        self._release()
        return outcome

    def progress(self) -> dict[str, Any] | None:
        """Return the progress that the trial last wrote."""
        return read_progress(self.directory) if self._group else None

    def stop(self, status: str, error: str, at_once: bool = False) -> None:
        """Asks the trial to save and stop, and ends it if it does not; ``at_once`` leaves out the asking."""
        self._stopping = (status, error)
        wait = 0 if at_once else SAVE_S
        now = time.monotonic()
        self._signals = [(now + wait, signal.SIGTERM), (now + wait + STOP_S, signal.SIGKILL)]
        if not at_once:
            self._signals.insert(0, (now, signal.SIGUSR1))

    def _begin(self) -> None:
        """Puts away what other code has left, and opens the record."""
        previous = files.read_json(self.directory / files.RECORD)
        if previous is not None and (previous.get("status") == "ok" or made_by_other_code(previous)):
            supersede(self.directory, self._config["output_root"], previous)
            previous = None
        for left in (files.FAILURE, files.PROGRESS):
            (self.directory / left).unlink(missing_ok=True)
        files.write_config(self.directory, self._config)
        record = new_record(self._config, self._overrides, previous)
        files.write_json(self.directory / files.RECORD, to_json(record))

    def _start(self) -> Outcome | None:
        """Opens the record and starts the processes, once nobody else's are left."""
        if self._stopping:
            return self._finish(*self._stopping)
        waited = time.monotonic() - self._waiting
        if not self._keeps_record and not self._first_is_there():
            return None if waited < JOIN_S else Outcome("failed", f"machine 0 has not started this trial in {JOIN_S} s")
        if self._keeps_record and held(self.directory / RANKS):
            if waited < SAVE_S + STOP_S:
                return None  # ranks of a launcher that was killed are still saving
            return self._finish("failed", "processes of an earlier start of this trial are still there")
        fork = can_fork() and not on_gpu(self._config)
        threads = self._config["cluster"]["threads_per_process"]
        try:
            if not self._begun:
                self._begin()
                self._begun = True
            (self.directory / self._log).open("ab").close()
        except OSError as error:
            return self._finish("refused", _not_written(self.directory, error))
        try:
            self._group = ProcessGroup(
                self.directory, self._ranks, self.directory / self._log, fork, threads, self.gpus, self.node
            )
        except OSError as error:
            return self._finish("failed", f"no process could be started: {error.strerror or error}")
        self._silence = Silence()
        return None

    def _watch(self, group: ProcessGroup) -> None:
        """Keeps the limits, and sends the signals of a stop when they are due."""
        now = time.monotonic()
        silent_s = self._silence.seconds(self._last_sign())
        if self._signals:
            if now >= self._signals[0][0]:
                group.signal(self._signals.pop(0)[1])
            return
        limit, stall = self._limits["time_limit_s"], self._limits["stall_s"]
        if limit is not None and now - self._asked > limit:
            self.stop("interrupted", f"the time limit of {limit:g} s; {files.GOES_ON}")
        elif stall is not None and silent_s > stall:
            self.stop("failed", f"no sign of life for {stall:g} s (launch.stall_s)", at_once=True)
        elif not self._keeps_record and not self._first_is_there():
            self.stop("failed", "machine 0 has ended the trial", at_once=True)

    def _last_sign(self) -> float:
        try:
            return (self.directory / files.PROGRESS).stat().st_mtime
        except OSError:
            return -math.inf

    def _first_is_there(self) -> bool:
        """Whether machine 0 is at this trial; asked now and then, as asking takes the lock for an instant."""
        if time.monotonic() - self._looked_for_first > LOOK_S:
            self._looked_for_first = time.monotonic()
            self._first = held(self.directory / LAUNCHER)
        return self._first

    def _ended(self, code: int) -> Outcome:
        record = files.read_json(self.directory / files.RECORD) or {}
        if not self._keeps_record:
            if code == 0 or record.get("status") == "ok":
                return Outcome("ok")
            if not held(self.directory / LAUNCHER) and record.get("status") != "running":
                return Outcome(str(record.get("status", "failed")), record.get("error"))  # machine 0 knows more
            return Outcome(*self._stopping) if self._stopping else Outcome("failed", self._cause(code))
        if record.get("status") == "ok":  # whatever has ended the wait for its mirrors
            return self._finish("ok", None)
        if self._stopping:
            return self._finish(*self._stopping)
        if code == INTERRUPTED and record.get("status") == "interrupted":
            return self._finish("interrupted", record.get("error"))
        return self._finish("failed", self._cause(code))

    def _finish(self, status: str, error: str | None) -> Outcome:
        """Writes the outcome where the ranks could not, or know less of it."""
        if self._keeps_record and self._begun:
            files.amend(self.directory, status, error)
        if self._group is None:
            self._release()
        return Outcome(status, error)

    def _restart(self, error: str) -> None:
        files.reopen(self.directory, error)
        self._group, self._stopping, self._signals = None, None, []
        self._waiting = time.monotonic()

    def _cause(self, returncode: int) -> str:
        failure = files.read_json(self.directory / files.FAILURE)
        if failure is not None and "error" in failure and not (returncode < 0 and failure.get("peer")):
            return str(failure["error"])
        if returncode < 0:
            return units.killed_by(-returncode)
        if not self.directory.is_dir():
            return "its folder was removed while it ran"
        lines = files.last_lines(self.directory / self._log)
        if not lines and is_full(self.directory):
            return FULL_DISK
        hint = " (was the server of processes killed?)" if returncode == SERVER_LOST else ""
        return f"exit code {returncode}{hint}: {lines[-1] if lines else 'no output'}"

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()


def start_trial(trial: Trial, gpus: Sequence[str] | None = None, node: Node | None = None) -> TrialJob | Outcome:
    """Starts a trial, unless it is finished, refused, or with another launcher."""
    if done := settled(trial):
        return done
    try:
        trial.directory.mkdir(parents=True, exist_ok=True)
        if node is not None and node.rank > 0:
            return TrialJob(trial, None, gpus, node)
        lock = Lock.take(trial.directory / LAUNCHER)
        if lock is None:
            return with_another(trial)
        if is_finished(trial):
            lock.release()
            return Outcome("finished")
        return TrialJob(trial, lock, gpus, node)
    except OSError as error:
        return Outcome("refused", _not_written(trial.directory, error))


def is_full(directory: Path) -> bool:
    """Tell whether nothing more can be written to a folder's disk: it has no space, or no inodes, left for this user. False
    where there is no such folder."""
    try:
        disk = os.statvfs(directory)
    except OSError:
        return False
    return disk.f_bavail == 0 or disk.f_files > 0 and disk.f_favail == 0


def _not_written(directory: Path, error: OSError) -> str:
    """Return in one line why a trial's files cannot be written."""
    if full_disk(error):
        return f"{FULL_DISK}: nothing can be written to {directory}"
    place = error.filename if isinstance(error.filename, str) else directory
    return f"cannot write to {place}: {error.strerror}"


def settled(trial: Trial) -> Outcome | None:
    """Return the outcome of a trial that is not to be started, as refused or finished already; None if it is to be started."""
    if refused := refusal(trial):
        return Outcome("refused", refused)
    return Outcome("finished") if is_finished(trial) else None


def with_another(trial: Trial) -> Outcome:
    """Return the outcome that another launcher has the trial, and which one."""
    who = holder(trial.directory / LAUNCHER)
    return Outcome("busy", f"process {who.get('pid', '?')} on {who.get('host', '?')} is running it")
