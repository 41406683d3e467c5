"""Trials as jobs of Slurm, by submitit itself: Hydra's launcher for it composes again within the job, and ends at the first job
without a result, the others unseen.

A job is one trial and has one task per node, which looks after the ranks there as ``trial_job`` does anywhere. Who
submitted it reads the trial's files and asks Slurm; who comes later finds the job by ``slurm_job.json``.
"""

import io
import pickle
import re
import shlex
import time
from collections.abc import Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from benchmarks.config.folders import added_folders
from benchmarks.config.trial import Trial
from benchmarks.launch.new_record import JOB
from benchmarks.launch.slurm_queue import LOOK_S, SACCT, Queue, Ticket, answer_lines, find_slurm, job_name
from benchmarks.launch.slurm_task import Task, amend_record
from benchmarks.launch.sweep import Executor
from benchmarks.launch.trial_job import Outcome, settled, with_another
from benchmarks.records import files
from benchmarks.records.code_version import ROOT
from benchmarks.records.locks import LAUNCHER, Lock
from benchmarks.records.progress import read_progress

FOLDER = "slurm"  # of an output root: submitit's files, one folder per job
SILENT_S = 600  # without an answer before a job is given up
LATE_S = 10  # that a result may be late on a shared file system
CANCEL_S = 120  # for a cancelled job to end; KillWait is 30 s by default
SIGNAL_S = 90  # from the signal to Slurm's time limit: to save and to stop
# States of a job that has ended; `gone` is one that Slurm knows no more.
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"}
ENDED |= {"REVOKED", "TIMEOUT", "gone"}


class SlurmJob:
    """A trial in Slurm's queue or on its nodes; this launcher may cancel its ``own``, which it submitted."""

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
        amend_record(self.directory, *self._stopping)
        return Outcome(*self._stopping)

    def progress(self) -> dict[str, Any] | None:
        """Return the progress that the trial last wrote, or that its job has not been started yet."""
        if not self._fresh:
            return None
        if self._queue.state(self.ticket) == "PENDING":
            what = f"in Slurm's queue, job {self.ticket.id}"
            return {"phase": "prepare", "what": what, "done": 0, "total": 0, "metrics": {}}
        return read_progress(self.directory)

    def stop(self, status: str, error: str, at_once: bool = False) -> None:
        """Cancels the job, which then saves; leaves one of another launcher alone."""
        self._stopping = (status, error)
        if self._own:
            self._stop_by = time.monotonic() + CANCEL_S
            answer_lines("scancel", *(["--signal=KILL", "--full"] if at_once else []), self.ticket.id)

    def _left(self) -> Outcome | None:
        """What the task of the first node returned."""
        try:
            with open(self._folder / f"{self.ticket.id}_0_result.pkl", "rb") as file:
                kind, result = _Result(file).load()
        except (OSError, EOFError):
            return None
        except (pickle.UnpicklingError, TypeError, ValueError):
            return Outcome("failed", f"{file.name} is no result of a job")
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
            outcome = Outcome("interrupted", f"{job} was cancelled; {files.GOES_ON}")
        elif state in {"PREEMPTED", "TIMEOUT"}:
            outcome = Outcome("interrupted", f"{job} was ended: {state}; {files.GOES_ON}")
        else:
            outcome = Outcome("failed", f"{job} left no result: {state}{self._last_words()}")
        amend_record(self.directory, outcome.status, outcome.error or "")
        return outcome

    def _last_words(self) -> str:
        [code, *_] = answer_lines("sacct", *SACCT, "--format=ExitCode", f"--jobs={self.ticket.id}") or [""]
        code = f", exit code {code}" if code else ""
        for log in (self._folder / f"{self.ticket.id}_0_log.err", self.directory / files.LOG):
            if lines := files.last_lines(log, most=1000):
                return f"{code}; {([line for line in lines if 'error' in line.lower()] or lines)[-1].strip()}"
        return code


class _Result(pickle.Unpickler):
    """What a job has returned: text and an Outcome. Folders are passed on, and a pickle could call anything."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the class Outcome. Raises UnpicklingError for any other."""
        if (module, name) != (Outcome.__module__, Outcome.__qualname__):
            raise pickle.UnpicklingError(f"{module}.{name}")
        return Outcome


class SlurmExecutor(Executor):
    """Submits every trial as a job; those of the sweep that are in Slurm's hands already it only watches. Raises ValueError
    where submitit is not installed, TimeoutError where there is no Slurm here, or it does not answer."""

    def __init__(self, launch: Mapping[str, Any]) -> None:
        try:
            import submitit  # noqa: F401
        except ImportError as error:
            raise ValueError("cluster=slurm needs submitit: pip install -e '.[slurm]'") from error
        find_slurm()
        self._queue = Queue()

    def start(self, trial: Trial) -> SlurmJob | Outcome:
        """Submits a trial, or finds the job that has it."""
        if done := settled(trial):
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
        if not re.fullmatch(r"\d+(_\d+)?", str(known.get("id")), re.ASCII) or not isinstance(known.get("name"), str):
            return Outcome(
                "refused", f"{trial.directory / JOB} is damaged; remove it if no job of this trial is in the queue"
            )
        ticket = Ticket(str(known["id"]), known["name"])
        state = self._queue.state(ticket)
        if state is None:
            return Outcome("failed", f"Slurm does not answer whether its job {ticket.id} of this trial goes on")
        if state in ENDED:
            self._queue.remove(ticket)
            return None
        if ticket.name != job_name(trial):
            return Outcome("refused", f"Slurm job {ticket.id} computes another configuration in {trial.directory}")
        return SlurmJob(trial, ticket, self._queue, own=False)

    def _submit(self, trial: Trial) -> SlurmJob | Outcome:
        from submitit import SlurmExecutor as Submitter
        from submitit.core.utils import FailedJobError

        try:
            with redirect_stderr(io.StringIO()):  # submitit prints what it raises
                submitter = Submitter(_folder(trial) / "%j", max_num_timeout=trial.config["cluster"]["max_requeues"])
                submitter.update_parameters(**_parameters(trial))
                job = submitter.submit(Task(trial))
        except (FailedJobError, OSError, ValueError) as error:
            line = str(error).strip().splitlines()[-1].removeprefix("sbatch: error: ")
            return Outcome("refused", f"the job was not submitted: {line}")
        ticket = Ticket(job.job_id, job_name(trial))
        files.write_json(trial.directory / JOB, {**ticket._asdict(), "submitted": files.now()})
        self._queue.add(ticket)
        return SlurmJob(trial, ticket, self._queue, own=True)


def _folder(trial: Trial) -> Path:
    return Path(trial.config["output_root"], FOLDER).absolute()


def _parameters(trial: Trial) -> dict[str, Any]:
    """Return the parameters of a trial's job, as submitit names them."""
    cluster, trainer = trial.config["cluster"], trial.config["trainer"]
    cores = trainer["devices"] * cluster["cpus_per_rank"]
    folders = shlex.quote(":".join(map(str, (ROOT, *added_folders()))))  # where no environment is exported to jobs
    paths = f"export PYTHONSAFEPATH=1 PYTHONPATH={folders}${{PYTHONPATH:+:$PYTHONPATH}}"
    parameters = {
        "job_name": job_name(trial),
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
    for key, value in {**parameters, **parameters["additional_parameters"]}.items():
        if isinstance(value, str) and not value.isprintable():  # a second line would be one of the job's script
            raise ValueError(f"cluster.{key} is one line of printable text, got {value!r}")
    return {key: value for key, value in parameters.items() if value is not None}
