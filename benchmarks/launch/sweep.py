"""A sweep runs the trials that are missing, through an executor, which decides where each runs."""

import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from benchmarks.config.hydra_errors import unwrapped
from benchmarks.config.trial import ConfigurationError, Impossible, Trial, config_hash
from benchmarks.launch.checks import missing_resources
from benchmarks.launch.new_record import SUPERSEDED
from benchmarks.launch.process import COMPILER
from benchmarks.launch.process_group import preload
from benchmarks.launch.progress import SweepProgress
from benchmarks.launch.trial_job import POLL_S, Outcome, TrialJob, settled, start_trial
from benchmarks.records import files
from benchmarks.records.code_version import made_by_other_code, targets
from benchmarks.records.hardware import gpus, on_gpu
from benchmarks.records.progress import read_progress
from benchmarks.units import grouped, one_line

ASK_AGAIN_S = 1.0  # after a trial was found with another launcher


class Job(Protocol):
    """A trial on its way."""

    def poll(self) -> Outcome | None:
        """The outcome, once there is one."""

    def progress(self) -> dict[str, Any] | None:
        """Return the progress that the trial last wrote."""

    def stop(self, status: str, error: str, at_once: bool = False) -> None:
        """Asks it to save and stop; ``at_once`` leaves out the saving."""


class Executor(Protocol):
    """Where trials run: by default where others keep the queue."""

    def room(self) -> bool:
        """Whether one more may start now."""
        return True

    def start(self, trial: Trial) -> Job | Outcome:
        """Starts a trial, or says why not."""

    def ended(self, job: Any) -> None:
        """Takes back what the job had."""


class LocalExecutor(Executor):
    """Trials on this machine, ``launch.workers`` at a time; several at a time have their own GPUs each, or share them by
    ``cluster.oversubscribe``."""

    def __init__(self, launch: Mapping[str, Any]) -> None:
        self.workers = launch["workers"]
        self._running = 0
        self._trials_on: dict[str, int] = {}  # by GPU

    def room(self) -> bool:
        """Whether fewer than ``workers`` trials run."""
        return self._running < self.workers

    def start(self, trial: Trial) -> Job | Outcome:
        """Starts a trial in processes of its own."""
        if done := settled(trial):  # first: what has its result needs nothing of this machine
            return done
        if lacking := missing_resources(trial, self.workers):
            return Outcome("refused", lacking)
        own = self._take_gpus(trial.config) if self.workers > 1 and on_gpu(trial.config) else None
        started = start_trial(trial, own)
        if isinstance(started, Outcome):
            self._give_back(own)
        else:
            self._running += 1
        return started

    def ended(self, job: TrialJob) -> None:
        """Makes room for the next."""
        self._running -= 1
        self._give_back(job.gpus)

    def _take_gpus(self, config: Mapping[str, Any]) -> Sequence[str]:
        """Return the GPUs that the fewest trials have."""
        if not self._trials_on:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            self._trials_on = dict.fromkeys(visible.split(",") if visible else map(str, range(gpus())), 0)
        taken = sorted(self._trials_on, key=self._trials_on.__getitem__)[: config["trainer"]["devices"]]
        for gpu in taken:
            self._trials_on[gpu] += 1
        return taken

    def _give_back(self, own: Sequence[str] | None) -> None:
        for gpu in own or ():
            self._trials_on[gpu] -= 1


class Sweep:
    """Runs trials and keeps their outcomes.

    Args:
        trials: in their order.
        watcher: is told.
        command: the arguments that asked for them, for the list that ``status`` reads; kept once a trial has started.

    Raises:
        ConfigurationError: the cluster that is asked for cannot be used from here.

    Attributes:
        outcomes: by the trial's place; those of all trials after ``run``, of the ended ones after an interrupt.
    """

    def __init__(self, trials: Sequence[Trial | Impossible], watcher: SweepProgress, command: Sequence[str]) -> None:
        self.trials = trials
        self.command = command
        self.watcher = watcher
        self.outcomes: dict[int, Outcome] = {}
        self._queue = deque(range(len(trials)))
        self._jobs: dict[int, Job] = {}
        self._elsewhere: dict[int, float] = {}  # when to ask again
        self._listed = False
        composed = [trial for trial in trials if isinstance(trial, Trial)]
        config = composed[0].config
        self._fail_fast = config["launch"]["fail_fast"]
        try:
            self._executor: Executor = instantiate(config["cluster"]["executor"], launch=config["launch"])
        except InstantiationException as error:
            raise ConfigurationError(str(unwrapped(error)).splitlines()[0]) from error
        preload(imports_of(composed))

    def run(self) -> None:
        """Runs what is missing; returns when every trial has ended, or at the first failure under ``launch.fail_fast``. Raises
        KeyboardInterrupt after all running trials have saved and stopped."""
        try:
            while (self._queue or self._jobs or self._elsewhere) and not self._failed_fast():
                self._step()
            self._stop("stopped, as another trial has failed (launch.fail_fast)")
        except KeyboardInterrupt as interrupt:
            cause = f"interrupted by {str(interrupt) or 'Ctrl-C'}"
            try:
                self._stop(cause)
            except KeyboardInterrupt:
                self._stop(f"{cause}, twice", at_once=True)
            raise
        except Exception as error:
            self._stop(f"the launcher failed: {error}", at_once=True)
            raise

    def _step(self) -> None:
        due = [index for index, when in self._elsewhere.items() if when <= time.monotonic()]
        while self._executor.room() and (self._queue or due):
            self._start(self._queue.popleft() if self._queue else due.pop(0))
            if self._failed_fast():
                return
        self._poll()
        time.sleep(POLL_S)

    def _start(self, index: int) -> None:
        trial = self.trials[index]
        waited = self._elsewhere.pop(index, None) is not None
        if not waited:
            self.watcher.begin(index, trial.label)
        if isinstance(trial, Impossible):
            self._end(index, Outcome("refused", trial.error))
            return
        try:
            started = self._executor.start(trial)
        except Exception as error:  # of this trial's files or values: the others can run
            started = Outcome("failed", one_line(f"it could not be started: {type(error).__name__}: {error}"))
        if not isinstance(started, Outcome):
            self._jobs[index] = started
            record = files.read_json(trial.directory / files.RECORD) or {}
            if record.get("status") != "ok" and made_by_other_code(record):
                commit = (record.get("code") or {}).get("commit")
                code = f"other training code (commit {one_line(str(commit))[:8]})" if commit else "other training code"
                self.watcher.say(f"{trial.label}  {code} has begun it: it starts anew; {SUPERSEDED}/ keeps that")
            if not self._listed:
                write_sweep(self.trials, self.command)
                self._listed = True
        elif started.status != "busy":
            self._end(index, started)
        else:
            self._elsewhere[index] = time.monotonic() + ASK_AGAIN_S
            if not waited:
                self.watcher.wait(index, trial.label, started.error or "")
            elif (progress := read_progress(trial.directory)) is not None:
                self.watcher.update(index, progress)

    def _poll(self) -> None:
        for index, job in list(self._jobs.items()):
            outcome = job.poll()
            if outcome is not None:
                del self._jobs[index]
                self._executor.ended(job)
                self._end(index, outcome)
            elif (progress := job.progress()) is not None:
                self.watcher.update(index, progress)
        self.watcher.refresh()

    def _end(self, index: int, outcome: Outcome) -> None:
        self.outcomes[index] = outcome
        self.watcher.end(index, self.trials[index].label, outcome)

    def _failed_fast(self) -> bool:
        return self._fail_fast and not all(outcome.good for outcome in self.outcomes.values())

    def _stop(self, error: str, at_once: bool = False) -> None:
        for job in self._jobs.values():
            job.stop("interrupted", error, at_once)
        while self._jobs:
            self._poll()
            time.sleep(POLL_S)


def imports_of(trials: Iterable[Trial]) -> list[str]:
    """Return the modules that these trials import beside what all do: those that `_target_` keys name, and the compiler."""
    # Of `task` and `loading`, which hold all kinds, a trial has its own in `module` and `datamodule`.
    configs = [{key: trial.config[key] for key in trial.config if key not in ("task", "loading")} for trial in trials]
    modules = {target.rpartition(".")[0] for config in configs for target in targets(config)}
    trainers = [config["trainer"] for config in configs]
    if any(trainer["compile"] or trainer["devices"] * trainer["num_nodes"] > 1 for trainer in trainers):
        modules.add(COMPILER)
    return sorted(modules)


def write_sweep(trials: Iterable[Trial | Impossible], command: Sequence[str]) -> None:
    """Keeps the list of a sweep's trials in ``<output_root>/sweeps/``, so that ``status`` knows what is missing."""
    composed = [trial for trial in trials if isinstance(trial, Trial)]
    for root, members in grouped(composed, lambda trial: trial.config["output_root"]).items():
        rows = [
            {
                "directory": str(trial.directory.relative_to(root)),
                "label": trial.label,
                "config_hash": config_hash(trial.config),
            }
            for trial in members
        ]
        digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
        path = Path(root, files.SWEEPS, f"{digest[:12]}.json")
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(path, {"command": list(command), "made": files.now(), "trials": rows})
