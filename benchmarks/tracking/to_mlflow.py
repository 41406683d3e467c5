"""MLflow: a run on the server of MLFLOW_TRACKING_URI, else in ``mlflow.db`` of the output root."""

import fcntl
import logging
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from benchmarks.records.files import LAYERS, LOG, RECORD
from benchmarks.tracking.content import STEP, Content, Row
from benchmarks.units import number

logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of each table that it makes
RUN_ID = "compute_accuracy.run_id"  # the tag by which a run is found again
MOST_METRICS, MOST_PARAMS, LONGEST_PARAM = 1000, 100, 500  # of a call; characters that every server takes
STATES = {"ok": "FINISHED", "interrupted": "KILLED", "preempted": "KILLED", "killed": "KILLED"}


class Writer:
    """Writes to the MLflow run with this run's id among its tags, which is made where there is none."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._client, experiment = _open(content)
        earlier = self._client.search_runs([experiment], f"tags.`{RUN_ID}` = '{content.record['run_id']}'")
        if earlier:
            self._id = earlier[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            if "error" in earlier[0].data.tags:  # of an interruption from which the run goes on
                self._client.delete_tag(self._id, "error")
        else:
            start = round(content.time_of({}) * 1000)
            tags = {RUN_ID: content.record["run_id"], "group": content.group}
            self._id = self._client.create_run(experiment, start, tags, content.name).info.run_id
        params = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in content.facts.items()]
        for first in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(self._id, params=params[first : first + MOST_PARAMS])
        self._steps = self._steps_of(STEP)

    @property
    def rows(self) -> int:
        """How many rows of the history the run holds."""
        return len(self._steps)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows of the history."""
        metrics: list[Metric] = []
        for row in rows:
            time = round(self._content.time_of(row) * 1000)
            own = [Metric(name, float(value), time, row[STEP]) for name, value in row.items()]
            if len(metrics) + len(own) > MOST_METRICS:
                self._client.log_batch(self._id, metrics)
                metrics = []
            metrics += own
        self._client.log_batch(self._id, metrics)
        self._steps |= {row[STEP] for row in rows}

    def close(self, content: Content) -> None:
        """Write costs, errors and outcome, the record, and the pictures."""
        last = (content.rows or [Row({STEP: 0})])[-1]
        time = round(content.time_of(last) * 1000)
        metrics, tags = [], []
        for name, value in content.summary.items():
            if number(value) is None:
                tags.append(RunTag(name, str(value)[:LONGEST_PARAM]))
            elif last[STEP] not in self._steps_of(name):
                metrics.append(Metric(name, float(value), time, last[STEP]))
        self._client.log_batch(self._id, metrics, tags=tags)
        for file in (RECORD, LAYERS, LOG):
            if (content.directory / file).is_file():
                self._client.log_artifact(self._id, str(content.directory / file))
        for path in content.pictures:
            self._client.log_artifact(self._id, str(path), "pictures")
        self._client.set_terminated(self._id, STATES.get(content.record["status"], "FAILED"), time)

    @staticmethod
    def where(content: Content) -> str:
        """Return the server, or the command that shows the runs."""
        uri: str | None = content.settings["tracking_uri"]
        return uri or f"mlflow ui --backend-store-uri {shlex.quote(_database(content.root))}"

    def _steps_of(self, metric: str) -> set[int]:
        return {one.step for one in self._client.get_metric_history(self._id, metric)}


def _open(content: Content) -> tuple[MlflowClient, str]:
    """Return the client and the id of the experiment, which is made where there is none."""
    uri, name = content.settings["tracking_uri"], content.settings["experiment"]
    with ExitStack() as stack:
        if uri is None:  # one process at a time makes the tables of a database
            fcntl.flock(stack.enter_context(open(content.root / ".mlflow.lock", "w")), fcntl.LOCK_EX)
        client = MlflowClient(uri or _database(content.root))
        try:
            place = None if uri else (content.root / "mlartifacts").as_uri()
            return client, client.create_experiment(name, place)
        except MlflowException:
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
            return client, experiment.experiment_id


def _database(root: Path) -> str:
    return f"sqlite:///{root / 'mlflow.db'}"
