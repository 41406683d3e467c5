"""What runs in a Slurm job: a task on each node, which looks after the ranks there and obeys Slurm's signals."""

import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.config.trial import Trial
from benchmarks.launch.checks import missing_resources
from benchmarks.launch.process import Node
from benchmarks.launch.process_group import preload
from benchmarks.launch.slurm_queue import LOOK_S, SACCT, Ticket, answer_lines, job_name, states_of
from benchmarks.launch.trial_job import POLL_S, Outcome, TrialJob, start_trial
from benchmarks.records import files
from benchmarks.records.locks import LAUNCHER, held

END_S = 600  # that a task waits for Slurm to end it: longer than a grace time


@dataclass(frozen=True)
class Task:
    """What a job runs once on each of its nodes: it looks after the trial's ranks there."""

    trial: Trial

    def __call__(self) -> Outcome:
        """Runs them to the end, or until Slurm wants the node back: then they save, and the job goes on later."""
        wishes: list[signal.Signals] = []  # SIGUSR2 before the time limit, SIGTERM for pre-emption and cancelling
        requeue: Any = signal.getsignal(signal.SIGUSR2)  # submitit's
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, lambda number, frame: wishes.append(signal.Signals(number)))
        trainer = self.trial.config["trainer"]
        if wrong := mismatch(trainer) or missing_resources(self.trial, machines=trainer["num_nodes"]):
            return Outcome("refused", wrong)
        preload(())
        node = _node(self.trial.config)
        job = self._start(node)
        outcome = job if isinstance(job, Outcome) else None
        stopping = False
        while isinstance(job, TrialJob) and (outcome := job.poll()) is None:
            if wishes and not stopping:
                stopping = True
                job.stop("preempted", f"{wishes[0].name} from Slurm; it goes on by itself")
            time.sleep(POLL_S)
        assert outcome is not None
        if not wishes or outcome.status not in {"preempted", "interrupted"}:
            return outcome
        return self._leave(wishes[0], requeue, first=node is None or node.rank == 0)

    def checkpoint(self) -> Any:
        """Return what submitit runs when it has put the job back into the queue: this task again."""
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
            amend_record(directory, "preempted", f"{wish.name} from Slurm; it goes on by itself")
        if first and wish == signal.SIGUSR2:
            try:
                requeue(signal.SIGUSR2, None)
            except UncompletedJobError:
                error = f"Slurm's time limit, {limit + 1} times (cluster.max_requeues={limit}); {files.GOES_ON}"
                amend_record(directory, "interrupted", error)
                return Outcome("interrupted", error)
        deadline = time.monotonic() + END_S
        job = Ticket(os.environ["SLURM_JOB_ID"], job_name(self.trial))
        while time.monotonic() < deadline and (states_of({job}) or {job: "RUNNING"})[job] == "RUNNING":
            time.sleep(LOOK_S)
        if first and (answer_lines("sacct", *SACCT, "--format=State", f"--jobs={job.id}") or [""])[0].startswith(
            "CANCELLED"
        ):
            amend_record(directory, "interrupted", f"Slurm job {job.id} was cancelled; {files.GOES_ON}")
        sys.exit(128 + signal.SIGTERM)  # no result: the trial has none yet


def mismatch(trainer: Mapping[str, Any]) -> str | None:
    """Return in one line how the job differs from what the trial needs; None if it does not."""
    count, devices = trainer["num_nodes"], trainer["devices"]
    tasks, nodes = int(os.environ["SLURM_NTASKS"]), int(os.environ["SLURM_NNODES"])
    if (tasks, nodes) != (count, count):
        return f"trainer.num_nodes={count} needs {count} tasks on {count} nodes, this job has {tasks} on {nodes}"
    gpus = os.environ.get("SLURM_GPUS_ON_NODE")
    if trainer["accelerator"] in {"gpu", "cuda"} and gpus is not None and int(gpus) != devices:
        return f"trainer.devices={devices} needs {devices} GPUs on each node, this job has {gpus}"
    return None


def _node(config: Mapping[str, Any]) -> Node | None:
    """Return this task's place among those of its job; None where it is the only one."""
    count, job = config["trainer"]["num_nodes"], os.environ["SLURM_JOB_ID"]
    if count == 1:
        return None
    hosts = answer_lines("scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"])
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
    """Return the address by which Slurm reaches a node, whose name need not resolve."""
    match = re.search(r"NodeAddr=(\S+)", "\n".join(answer_lines("scontrol", "show", "node", host) or []))
    return match.group(1) if match else host


def amend_record(directory: Path, status: str, error: str) -> None:
    """Corrects the record of a trial that has no result and that nobody runs."""
    record = files.read_json(directory / files.RECORD)
    if record is None or record.get("status") == "ok" or held(directory / LAUNCHER):
        return
    files.amend(directory, status, error)
