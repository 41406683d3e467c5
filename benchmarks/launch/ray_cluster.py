"""Trials as tasks of Ray, by Ray itself: Hydra's launcher for it composes a trial again in the worker, ships its function by
value through cloudpickle, and raises at the end of a sweep what failed in it.

A task is one trial: it looks after the ranks on its node as ``trial_job`` does anywhere. The launcher reads the trial's
files, and closes the record where the node is gone.
"""

import logging
import math
import os
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.config.trial import ConfigurationError, Trial
from benchmarks.launch.checks import is_finished, missing_resources
from benchmarks.launch.process_group import preload
from benchmarks.launch.sweep import Executor
from benchmarks.launch.trial_job import POLL_S, SAVE_S, STOP_S, Outcome, TrialJob, settled, start_trial, with_another
from benchmarks.records import files
from benchmarks.records.code_version import ROOT
from benchmarks.records.hardware import cores
from benchmarks.records.locks import LAUNCHER, RANKS, held
from benchmarks.records.progress import read_progress

ANSWER_S = 5  # for a head node to answer
CONNECT_TRIES = "5"  # of Ray, a second each where the token is wrong
LOOK_S = 1.0  # between looks whether another launcher has let go of a trial
ASK_S = 5.0  # between questions for the nodes
SILENT_S = 10  # without an answer from the head before its trials are given up; Ray ends this process after 60
NODES_S = 60  # that a trial waits where no node is large enough for it
OF_MIRRORS = ("WANDB_", "MLFLOW_", "TRACKIO_")  # what their clients read of the environment
MARGIN_S = 10  # that Ray may take beyond a trial's own bounds
# How a client of gRPC begins: HTTP/2's preface and a frame of type SETTINGS, to which a server answers with its own.
SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS


class RayJob:
    """A trial in Ray's queue or on one of its nodes; ``task`` is Ray's reference to its outcome."""

    def __init__(self, trial: Trial, task: Any, cluster: "Cluster") -> None:
        self.directory = trial.directory
        self._trial = trial
        self._task = task
        self._cluster = cluster
        self._in_vain_since = math.inf
        self._stopping: tuple[str, str] | None = None
        self._stop_by = math.inf
        self._forced = False
        self._lost: Outcome | None = None

    def poll(self) -> Outcome | None:
        """The outcome, once the task has returned it or cannot any more."""
        import ray

        if self._lost is None and not ray.wait([self._task], timeout=0)[0]:
            self._watch()
        elif self._lost is None:
            try:
                outcome: Outcome = ray.get(self._task)
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError):
                self._give_up("the node was lost")
            except ray.exceptions.RayError as error:
                self._give_up(f"Ray: {(str(error).strip().splitlines() or [type(error).__name__])[-1]}")
            else:
                return self._close(outcome) if outcome.status == "interrupted" else outcome
        # Ranks that have outlived their supervisor are saving.
        if self._lost is None or (held(self.directory / RANKS) and time.monotonic() < self._stop_by):
            return None
        return self._close(self._lost)

    def progress(self) -> dict[str, Any] | None:
        """Return the progress that the trial last wrote."""
        return read_progress(self.directory)

    def stop(self, status: str, error: str, at_once: bool = False) -> None:
        """Cancels the task, which then stops its ranks: the first time they save."""
        import ray

        self._stopping = (status, error)
        self._stop_by = time.monotonic() + (0 if at_once else SAVE_S) + STOP_S + MARGIN_S
        ray.cancel(self._task)

    def _watch(self) -> None:
        """Keeps the bounds of a stop, and of waiting for a node that is not there."""
        import ray

        now = time.monotonic()
        lacking = self._cluster.lacking(self._trial)
        if self._cluster.silent_s() > SILENT_S:
            self._give_up("the head of the Ray cluster does not answer")
        elif now > self._stop_by and self._forced:
            self._give_up("its node does not answer")
        elif now > self._stop_by:
            self._forced, self._stop_by = True, now + MARGIN_S
            ray.cancel(self._task, force=True)
        elif self._stopping is None:
            self._in_vain_since = min(now, self._in_vain_since) if lacking else math.inf
            if lacking and now - self._in_vain_since > NODES_S:
                self.stop("refused", lacking)

    def _give_up(self, cause: str) -> None:
        """Give the trial up; its ranks, if there are any, run without a supervisor."""
        self._lost = Outcome("failed", cause)
        self._stop_by = time.monotonic() + SAVE_S + STOP_S

    def _close(self, outcome: Outcome) -> Outcome:
        """Return the outcome as the launcher knows it, and write it to the record where that says less."""
        if is_finished(self._trial):
            return Outcome("ok")
        status, error = self._stopping or (outcome.status, outcome.error)
        record = files.read_json(self.directory / files.RECORD)
        if record and record.get("status") in {"running", "interrupted"} and not held(self.directory / LAUNCHER):
            files.amend(self.directory, "failed" if status == "refused" else status, error)
        return Outcome(status, error)


class Cluster:
    """The nodes of the cluster, asked for every few seconds."""

    def __init__(self) -> None:
        import ray

        self._head = ray.get_runtime_context().gcs_address
        self._nodes: list[Mapping[str, float]] = []
        self._asked = self._answered = -math.inf

    def silent_s(self) -> float:
        """Return for how many seconds the head has not answered."""
        return self._asked - self._answered if self._asked != self._answered else 0

    def needs(self, trial: Trial) -> dict[str, int]:
        """Ray's resources for a trial, GPUs if it runs on them."""
        self._ask()
        trainer = trial.config["trainer"]
        needs = {"CPU": trainer["devices"] * trial.config["cluster"]["cpus_per_rank"]}
        on_gpu = trainer["accelerator"] in {"gpu", "cuda"}
        if on_gpu or (trainer["accelerator"] == "auto" and any(node.get("GPU") for node in self._nodes)):
            needs["GPU"] = trainer["devices"]
        return needs

    def lacking(self, trial: Trial) -> str | None:
        """Return in one line what no node has that the trial needs; None if one has all."""
        needs, fitting = self.needs(trial), self._nodes
        for kind, wanted in needs.items():
            largest = max((node.get(kind, 0) for node in fitting), default=0)
            if wanted > largest:
                asked = f"trainer.devices={trial.config['trainer']['devices']} takes {wanted} {kind}s on one node"
                return f"{asked}, but the largest of the Ray cluster's {len(self._nodes)} has {largest:g}"
            fitting = [node for node in fitting if node.get(kind, 0) >= wanted]
        return None

    def _ask(self) -> None:
        import ray

        if time.monotonic() - self._asked < ASK_S:
            return
        silent = _silence(self._head)  # Ray itself would wait for it
        self._asked = time.monotonic()
        if silent is None:
            self._nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            self._answered = self._asked


class RayExecutor(Executor):
    """Submits every trial as a task; Ray frees what it had. A Ray that is started here ends with this process, by itself.

    Args:
        launch: the configuration's block of that name.
        address: ``host:port`` of a running cluster's head, or ``auto`` for the one that this machine is part of; None or
            ``local`` starts Ray here.
        num_cpus: of a Ray that is started here; None for this machine's cores.
        object_store_memory: likewise; bytes.

    Raises:
        ConfigurationError: Ray is not installed, or there is none at the address.
    """

    def __init__(
        self, launch: Mapping[str, Any], address: str | None, num_cpus: int | None, object_store_memory: int
    ) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", CONNECT_TRIES)
        try:
            import ray
        except ImportError as error:
            raise ConfigurationError("cluster=ray needs Ray: pip install -e '.[ray]'") from error
        started_here = address in {None, "local"}
        place: dict[str, Any] = {"address": "local" if started_here else _find(str(address))}
        if started_here:
            place |= {"num_cpus": num_cpus or cores(), "object_store_memory": object_store_memory}
            place |= {"include_dashboard": False}
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        try:
            ray.init(
                **place,
                ignore_reinit_error=True,  # of the next look of seed=auto
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": {"PYTHONPATH": paths}},
            )
        except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
            where = "here" if started_here else f"at {place['address']} with this shell's RAY_AUTH_MODE and token"
            raise ConfigurationError(f"no Ray {where}: {str(error).strip().splitlines()[0]}") from error
        self._run_trial = ray.remote(run_trial)
        self._retries = launch["retries"]
        self._cluster = Cluster()

    def start(self, trial: Trial) -> RayJob | Outcome:
        """Submits a trial, unless no node could run it."""
        if done := settled(trial):
            return done
        nodes = trial.config["trainer"]["num_nodes"]
        if nodes > 1:
            needed = f"trainer.num_nodes={nodes} needs cluster=slurm or cluster=hosts: a task of Ray's is on one node"
            return Outcome("refused", needed)
        if lacking := self._cluster.lacking(trial):
            return Outcome("refused", lacking)
        if held(trial.directory / LAUNCHER):
            return with_another(trial)
        try:
            Path(trial.config["output_root"]).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            return Outcome("refused", f"cannot write to {trial.config['output_root']}: {error.strerror}")
        needs = self._cluster.needs(trial)
        tracking = {key: value for key, value in os.environ.items() if key.startswith(OF_MIRRORS)}
        task = self._run_trial.options(
            name=trial.label, num_cpus=needs["CPU"], num_gpus=needs.get("GPU", 0), max_retries=self._retries
        ).remote(trial, os.getcwd(), tracking)
        return RayJob(trial, task, self._cluster)


def run_trial(trial: Trial, folder: str, environment: Mapping[str, str]) -> Outcome:
    """Run a trial on this node to its end, as a task of Ray, from the launcher's ``folder``, with variables for the ranks."""
    cancelled = 0

    def note(number: int, frame: Any) -> None:
        nonlocal cancelled
        cancelled += 1

    signal.signal(signal.SIGINT, note)  # this is how Ray cancels a task
    for path in (Path(folder), Path(folder, trial.config["output_root"])):
        if not path.is_dir():
            return Outcome("refused", f"node {socket.gethostname()} does not share the launcher's {path}")
    os.chdir(folder)
    os.environ.update(environment)
    if lacking := missing_resources(trial):
        return Outcome("refused", lacking)
    preload(["ray"])  # which the main module of Ray's workers imports, and so does each process forked for them
    while not isinstance(job := start_trial(trial), TrialJob):
        if job.status != "busy" or cancelled:
            return job
        time.sleep(LOOK_S)
    stops = 0
    while (outcome := job.poll()) is None:
        if cancelled > stops:
            stops += 1
            job.stop("interrupted", "interrupted by the launcher", at_once=stops > 1)
        time.sleep(POLL_S)
    return outcome


def _find(address: str) -> str:
    """Return ``host:port`` of a running cluster that answers: Ray's own connecting takes over two minutes to fail."""
    from ray._private.services import canonicalize_bootstrap_address

    if address == "auto":
        try:
            address = canonicalize_bootstrap_address(address) or ""
        except ConnectionError as error:
            raise ConfigurationError(
                "cluster.address=auto: no Ray runs on this machine, and there is no RAY_ADDRESS"
            ) from error
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigurationError(f"cluster.address is null, local, auto or host:port, got {address!r}")
    if silent := _silence(address):
        raise ConfigurationError(f"no Ray at {address}: {silent}")
    return address


def _silence(address: str) -> str | None:
    """Return why no gRPC server answers at ``host:port``, in some words; None if one does."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_S) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return None
            connection.sendall(HELLO)
            answer = connection.recv(len(SETTINGS))
    except OSError as error:
        return f"tried for {ANSWER_S} s to connect: {error.strerror or error}"
    return None if answer[3:4] == SETTINGS[3:4] else "what answers there is something else"
