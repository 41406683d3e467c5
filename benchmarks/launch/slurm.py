"""Trials as jobs of Slurm, by submitit itself: Hydra's launcher for it composes again within the job, and ends at the first job
without a result, the others unseen.

A job is one trial and has one task per node, which looks after the ranks there as ``trial_job`` does anywhere. Who
submitted it reads the trial's files and asks Slurm; who comes later finds the job by ``slurm_job.json``.
"""

import getpass
import io
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.config.trial import Trial, config_hash
from benchmarks.launch.checks import lack
from benchmarks.launch.process import ROOT, Node, can_fork
from benchmarks.launch.process_group import preload
from benchmarks.launch.trial_job import POLL_S, Outcome, TrialJob, settled, start_trial, with_another
from benchmarks.records import files
from benchmarks.records.hardware import on_gpu
from benchmarks.records.locks import LAUNCHER, Lock, held

JOB = "slurm_job.json"
FOLDER = "slurm"  # of an output root: submitit's files, one folder per job
LOOK_S = 1.0  # between looks at a job's files
ASK_S = 4.0  # between questions to Slurm
ANSWER_S = 10  # for an answer
PATIENCE_S = 30  # for the first answer
SILENT_S = 600  # without an answer before a job is given up
LATE_S = 10  # that a result may be late on a shared file system
CANCEL_S = 120  # for a cancelled job to end; KillWait is 30 s by default
SIGNAL_S = 90  # from the signal to Slurm's time limit: to save and to stop
END_S = 600  # that a task waits for Slurm to end it: longer than a grace time
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"}
ENDED |= {"REVOKED", "TIMEOUT", "gone"}
GOES_ON = "the same command goes on from its last checkpoint"


class Ticket(NamedTuple):
    """A job; its name tells it from one of another trial, as Slurm may start again at 1."""

    id: str
    name: str


class Queue:
    """What Slurm says of this user's jobs, asked for all of them at once."""

    def __init__(self) -> None:
        self._watched: set[Ticket] = set()
        self._states: dict[Ticket, str] = {}
        self._asked = self._answered = -ASK_S

    def add(self, ticket: Ticket) -> None:
        """A job that was submitted just now."""
        self._watched.add(ticket)
        self._states[ticket] = "PENDING"

    def remove(self, ticket: Ticket) -> None:
        """Nobody will ask about it any more."""
        self._watched.discard(ticket)

    def state(self, ticket: Ticket) -> str | None:
        """Slurm's word, ``gone`` where it knows no such job; None where it does not answer."""
        answered = self._asked == self._answered
        if time.monotonic() - self._asked >= ASK_S or (answered and ticket not in self._states):
            self._watched.add(ticket)
            states = _states(self._watched)
            self._asked = time.monotonic()
            if states is not None:
                self._states, self._answered = states, self._asked
        return self._states.get(ticket) if self._asked == self._answered else None

    def silent_s(self) -> float:
        """How long it has not answered."""
        return self._asked - self._answered


class SlurmJob:
    """A trial in Slurm's queue or on its nodes.

    Args:
        trial: it computes.
        ticket: of the job.
        queue: to ask.
        own: whether this launcher submitted it: only then it may cancel it.
    """

    def __init__(self, trial: Trial, ticket: Ticket, queue: Queue, own: bool) -> None:
        self.directory = trial.directory
        self.ticket = ticket
        self._queue = queue
        self._own = own
        self._folder = _folder(trial) / ticket.id
        self._looked = -LOOK_S
        self._fresh = False
        self._ended_since: float | None = None
        self._stopping: tuple[str, str] | None = None
        self._stop_by = float("inf")

    def poll(self) -> Outcome | None:
        """The outcome, once the job has left one or Slurm has ended it."""
        now = time.monotonic()
        self._fresh = now - self._looked >= LOOK_S
        if not self._fresh:
            return None
        self._looked = now
        if self._stopping and not self._own:
            return Outcome("busy", f"Slurm job {self.ticket.id} goes on; scancel {self.ticket.id} ends it")
        outcome = self._left()
        if outcome is None:
            outcome = self._ended_by_slurm(now)
        if outcome is None or outcome.good or not self._stopping:
            return outcome
        _amend(self.directory, *self._stopping)
        return Outcome(*self._stopping)

    def progress(self) -> dict[str, Any] | None:
        """What the trial last said of itself, or that its job has not been started yet."""
        if not self._fresh:
            return None
        if self._queue.state(self.ticket) == "PENDING":
            what = f"in Slurm's queue, job {self.ticket.id}"
            return {"phase": "prepare", "what": what, "done": 0, "total": 0, "metrics": {}}
        return files.read_json(self.directory / files.PROGRESS)

    def stop(self, status: str, error: str, at_once: bool = False) -> None:
        """Cancels the job, which then saves; leaves one of another launcher alone."""
        self._stopping = (status, error)
        if self._own:
            self._stop_by = time.monotonic() + CANCEL_S
            _lines("scancel", *(["--signal=KILL", "--full"] if at_once else []), self.ticket.id)

    def _left(self) -> Outcome | None:
        """What the task of the first node returned."""
        try:
            with open(self._folder / f"{self.ticket.id}_0_result.pkl", "rb") as file:
                kind, result = pickle.load(file)
        except (OSError, EOFError):
            return None
        return result if kind == "success" else Outcome("failed", result.strip().splitlines()[-1])

    def _ended_by_slurm(self, now: float) -> Outcome | None:
        state = self._queue.state(self.ticket)
        if state is None and self._queue.silent_s() > SILENT_S:
            return Outcome("busy", f"Slurm has not answered for {SILENT_S} s; its job {self.ticket.id} may go on")
        if state not in ENDED:
            self._ended_since = None
            return Outcome("busy", f"Slurm has not ended its job {self.ticket.id}") if now > self._stop_by else None
        self._ended_since = self._ended_since or now
        if now - self._ended_since < LATE_S and not self._stopping:
            return None
        if (files.read_json(self.directory / files.RECORD) or {}).get("status") == "ok":
            return Outcome("ok")
        job = f"Slurm job {self.ticket.id}"
        if state == "CANCELLED":
            outcome = Outcome("interrupted", f"{job} was cancelled; {GOES_ON}")
        elif state in {"PREEMPTED", "TIMEOUT"}:
            outcome = Outcome("interrupted", f"{job} was ended: {state}; {GOES_ON}")
        else:
            outcome = Outcome("failed", f"{job} left no result: {state}{self._last_words()}")
        _amend(self.directory, outcome.status, outcome.error or "")
        return outcome

    def _last_words(self) -> str:
        [code, *_] = _lines("sacct", *SACCT, "--format=ExitCode", f"--jobs={self.ticket.id}") or [""]
        code = f", exit code {code}" if code else ""
        for log in (self._folder / f"{self.ticket.id}_0_log.err", self.directory / files.LOG):
            if log.exists() and (text := log.read_text(encoding="utf-8", errors="replace").strip()):
                lines = text.splitlines()
                return f"{code}; {([line for line in lines if 'error' in line.lower()] or lines)[-1].strip()}"
        return code


class SlurmExecutor:
    """Submits every trial as a job; those of the sweep that are in Slurm's hands already it only watches.

    Args:
        launch: the configuration's block of that name.

    Raises:
        ValueError: submitit is not installed.
        TimeoutError: there is no Slurm here, or it does not answer.
    """

    def __init__(self, launch: Mapping[str, Any]) -> None:
        try:
            import submitit  # noqa: F401
        except ImportError as error:
            raise ValueError("cluster=slurm needs submitit: pip install 'compute-accuracy[slurm]'") from error
        _find_slurm()
        self._queue = Queue()

    def room(self) -> bool:
        """Always: Slurm has the queue."""
        return True

    def start(self, trial: Trial) -> SlurmJob | Outcome:
        """Submits a trial, or finds the job that has it."""
        done = settled(trial)
        if done is not None:
            return done
        try:
            trial.directory.mkdir(parents=True, exist_ok=True)
            lock = Lock.take(trial.directory / LAUNCHER)
        except OSError as error:
            return Outcome("refused", f"cannot write to {trial.directory}: {error.strerror}")
        try:
            return self._find(trial) or (self._submit(trial) if lock else with_another(trial))
        finally:
            if lock:
                lock.release()

    def ended(self, job: SlurmJob) -> None:
        """Forgets its job."""
        self._queue.remove(job.ticket)

    def _find(self, trial: Trial) -> SlurmJob | Outcome | None:
        """The job that was submitted for the trial before and has not ended."""
        known = files.read_json(trial.directory / JOB)
        if known is None:
            return None
        ticket = Ticket(known["id"], known["name"])
        state = self._queue.state(ticket)
        if state is None:
            return Outcome("failed", f"Slurm does not answer whether its job {ticket.id} of this trial goes on")
        if state in ENDED:
            self._queue.remove(ticket)
            return None
        if ticket.name != _name(trial):
            return Outcome("refused", f"Slurm job {ticket.id} computes another configuration in {trial.directory}")
        return SlurmJob(trial, ticket, self._queue, own=False)

    def _submit(self, trial: Trial) -> SlurmJob | Outcome:
        from submitit import SlurmExecutor as Submitter
        from submitit.core.utils import FailedJobError

        said = io.StringIO()
        try:
            with redirect_stderr(said):  # submitit prints what it raises
                submitter = Submitter(_folder(trial) / "%j", max_num_timeout=trial.config["cluster"]["max_requeues"])
                submitter.update_parameters(**_parameters(trial))
                job = submitter.submit(Task(trial))
        except (FailedJobError, OSError, ValueError) as error:
            line = str(error).strip().splitlines()[-1].removeprefix("sbatch: error: ")
            return Outcome("refused", f"the job was not submitted: {line}")
        ticket = Ticket(job.job_id, _name(trial))
        files.write_json(trial.directory / JOB, {**ticket._asdict(), "submitted": files.now()})
        self._queue.add(ticket)
        return SlurmJob(trial, ticket, self._queue, own=True)


@dataclass(frozen=True)
class Task:
    """What a job runs once on each of its nodes.

    Args:
        trial: whose ranks of the node it looks after.
    """

    trial: Trial

    def __call__(self) -> Outcome:
        """Runs them to the end, or until Slurm wants the node back: then they save, and the job goes on later."""
        wish = Wish()
        trainer = self.trial.config["trainer"]
        wrong = _mismatch(trainer) or lack(self.trial, machines=trainer["num_nodes"])
        if wrong is not None:
            return Outcome("refused", wrong)
        if can_fork() and not on_gpu(self.trial.config):
            preload(())
        node = _node(self.trial.config)
        job = self._start(node)
        outcome = job if isinstance(job, Outcome) else None
        stopping = False
        while isinstance(job, TrialJob) and (outcome := job.poll()) is None:
            if wish.signal is not None and not stopping:
                stopping = True
                job.stop("preempted", f"{wish.signal.name} from Slurm; it goes on by itself")
            time.sleep(POLL_S)
        assert outcome is not None
        if wish.signal is None or outcome.status not in {"preempted", "interrupted"}:
            return outcome
        return self._leave(wish.signal, wish.requeue, first=node is None or node.rank == 0)

    def checkpoint(self) -> Any:
        """What submitit runs when it has put the job back into the queue: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _start(self, node: Node | None) -> TrialJob | Outcome:
        """Starts the ranks; who looks whether the trial is free holds its lock for an instant."""
        for _ in range(10):
            job = start_trial(self.trial, node=node)
            if isinstance(job, TrialJob) or job.status != "busy":
                break
            time.sleep(LOOK_S)
        return job

    def _leave(self, wish: signal.Signals, requeue: Any, first: bool) -> Outcome:
        """Ends as Slurm expects: its time limit means back into the queue, by submitit; what else it wants it does itself."""
        from submitit.core.utils import UncompletedJobError

        directory, limit = self.trial.directory, self.trial.config["cluster"]["max_requeues"]
        if first:
            _amend(directory, "preempted", f"{wish.name} from Slurm; it goes on by itself")
        if first and wish == signal.SIGUSR2:
            try:
                requeue(signal.SIGUSR2, None)
            except UncompletedJobError:
                error = f"Slurm's time limit, {limit + 1} times (cluster.max_requeues={limit}); {GOES_ON}"
                _amend(directory, "interrupted", error)
                return Outcome("interrupted", error)
        deadline = time.monotonic() + END_S
        job = Ticket(os.environ["SLURM_JOB_ID"], _name(self.trial))
        while time.monotonic() < deadline and (_states({job}) or {job: "RUNNING"})[job] == "RUNNING":
            time.sleep(LOOK_S)
        if first and (_lines("sacct", *SACCT, "--format=State", f"--jobs={job.id}") or [""])[0].startswith("CANCELLED"):
            _amend(directory, "interrupted", f"Slurm job {job.id} was cancelled; {GOES_ON}")
        sys.exit(128 + signal.SIGTERM)  # no result: the trial has none yet


class Wish:
    """Slurm's wish that the job ends: SIGUSR2 before the time limit, SIGTERM when it is pre-empted or cancelled.

    Attributes:
        signal: the first that came.
        requeue: submitit's handler.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.requeue: Any = signal.getsignal(signal.SIGUSR2)
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        self.signal = self.signal or signal.Signals(number)


SACCT = ("--noheader", "--allocations", "--parsable2")


def _states(tickets: AbstractSet[Ticket]) -> dict[Ticket, str] | None:
    """Of ``tickets`` and of all that is queued; None where Slurm does not answer. Accounting knows what has left the queue."""
    queued = _lines("squeue", "--noheader", "--states=all", f"--user={getpass.getuser()}", "--format=%i|%T|%j")
    if queued is None:
        return None
    states = _parse(queued)
    missing = tickets - states.keys()
    if missing:
        ids = ",".join(ticket.id for ticket in missing)
        states = _parse(_lines("sacct", *SACCT, "--format=JobID,State,JobName", f"--jobs={ids}") or []) | states
    return dict.fromkeys(tickets, "gone") | states


def _parse(lines: Sequence[str]) -> dict[Ticket, str]:
    fields = [line.split("|", 2) for line in lines]
    return {Ticket(number, name): state.split()[0] for number, state, name in fields}  # "CANCELLED by 0"


def _lines(*command: str) -> list[str] | None:
    """What a command of Slurm's prints; None where it fails or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()


def _find_slurm() -> None:
    if shutil.which("sbatch") is None:
        raise TimeoutError("Slurm does not answer: there is no sbatch on this machine")
    deadline = time.monotonic() + PATIENCE_S
    while _lines("sbatch", "--version") is None or _lines("sinfo", "--noheader") is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"Slurm does not answer: tried sbatch --version and sinfo for {PATIENCE_S} s")
        time.sleep(LOOK_S)


def _name(trial: Trial) -> str:
    return f"{trial.config['name']}-{config_hash(trial.config)[:12]}"


def _folder(trial: Trial) -> Path:
    return Path(trial.config["output_root"], FOLDER).absolute()


def _parameters(trial: Trial) -> dict[str, Any]:
    """For submitit."""
    cluster, trainer = trial.config["cluster"], trial.config["trainer"]
    cores = trainer["devices"] * cluster["cpus_per_rank"]
    paths = f"export PYTHONPATH={ROOT}${{PYTHONPATH:+:$PYTHONPATH}}"
    parameters = {
        "job_name": _name(trial),
        "nodes": trainer["num_nodes"],
        "ntasks_per_node": 1,
        "cpus_per_task": cores,
        "srun_args": [f"--cpus-per-task={cores}"],  # srun does not take it over from sbatch since Slurm 22.05
        "gpus_per_node": trainer["devices"] if trainer["accelerator"] in {"gpu", "cuda"} else None,
        "time": cluster["time_min"],
        "signal_delay_s": SIGNAL_S,
        "mem": None if cluster["mem_gb"] is None else f"{cluster['mem_gb']}G",
        "setup": [*cluster["setup"], paths],
        "additional_parameters": {"requeue": True, **(cluster["additional_parameters"] or {})},
    }
    parameters |= {key: cluster[key] for key in ("partition", "account", "qos", "mem_per_cpu")}
    return {key: value for key, value in parameters.items() if value is not None}


def _mismatch(trainer: Mapping[str, Any]) -> str | None:
    """In what the job is not what the trial needs, in one line."""
    count, devices = trainer["num_nodes"], trainer["devices"]
    tasks, nodes = int(os.environ["SLURM_NTASKS"]), int(os.environ["SLURM_NNODES"])
    if (tasks, nodes) != (count, count):
        return f"trainer.num_nodes={count} needs {count} tasks on {count} nodes, this job has {tasks} on {nodes}"
    gpus = os.environ.get("SLURM_GPUS_ON_NODE")
    if trainer["accelerator"] in {"gpu", "cuda"} and gpus is not None and int(gpus) != devices:
        return f"trainer.devices={devices} needs {devices} GPUs on each node, this job has {gpus}"
    return None


def _node(config: Mapping[str, Any]) -> Node | None:
    """This task's place among those of its job."""
    count, job = config["trainer"]["num_nodes"], os.environ["SLURM_JOB_ID"]
    if count == 1:
        return None
    hosts = _lines("scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"])
    if hosts is None:
        raise RuntimeError("scontrol does not say which nodes this job has")
    rank = int(os.environ["SLURM_NODEID"])
    return Node(
        rank=rank,
        count=count,
        endpoint=f"{_address(hosts[0])}:{20_000 + int(job) % 10_000}",
        run_id=f"{job}.{os.environ.get('SLURM_RESTART_COUNT', 0)}",
        address=_address(hosts[rank]),
        restarts=config["launch"]["retries"],
    )


def _address(host: str) -> str:
    """By which Slurm reaches a node, whose name need not resolve."""
    found = re.search(r"NodeAddr=(\S+)", "\n".join(_lines("scontrol", "show", "node", host) or []))
    return found.group(1) if found else host


def _amend(directory: Path, status: str, error: str) -> None:
    """Corrects the record of a trial that has no result and that nobody runs."""
    record = files.read_json(directory / files.RECORD)
    if record is None or record["status"] == "ok" or held(directory / LAUNCHER):
        return
    files.amend(directory, status, error)
