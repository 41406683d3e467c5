"""Trackio: a run in its own files, in TRACKIO_DIR, which ``trackio show`` shows and ``trackio sync`` sends to a Space.

By what its importers of CSV and TensorBoard files use, as ``trackio.log`` has no way to tell of a row that was not written.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import trackio
from trackio.sqlite_storage import SQLiteStorage

from benchmarks.tracking.content import STEP, Content, Row

OUTCOME = "status"  # stands in the closing log alone


class Writer:
    """Writes logs under ids that are made of the run's and the step, which Trackio takes once."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._id = content.record["run_id"]
        self._project = content.settings["project"]
        SQLiteStorage.validate_project_name(self._project)
        self._name = f"{content.name} · {self._id[-8:]}"  # one for each run: names of runs that differ in nothing else
        self._logs = SQLiteStorage.get_logs(self._project, run_id=self._id)
        self.rows = sum(STEP in log for log in self._logs)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows of the history."""
        self._log([dict(row) for row in rows], rows, [str(row[STEP]) for row in rows])
        self.rows += len(rows)

    def close(self, content: Content) -> None:
        """Write costs, errors, outcome and pictures."""
        last = (content.rows or [Row({STEP: 0})])[-1]
        summary = {name: value for name, value in content.summary.items() if name not in last}
        if any((log.get(OUTCOME), log["step"]) == (summary[OUTCOME], last[STEP]) for log in self._logs):
            return
        for path in content.pictures:
            image = trackio.Image(path, caption=path.stem)
            image._save(self._project, self._name, last[STEP])
            summary[f"pictures/{path.stem}"] = image._to_dict()
        self._log([summary], [last], [f"{last[STEP]}-{summary[OUTCOME]}"])

    @staticmethod
    def where(content: Content) -> str:
        """Return the command that shows the runs."""
        return "trackio show"

    def _log(self, logs: list[dict[str, Any]], rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
        times = [datetime.fromtimestamp(self._content.time_of(row), UTC).isoformat() for row in rows]
        SQLiteStorage.bulk_log(
            self._project,
            self._name,
            logs,
            [row[STEP] for row in rows],
            times,
            self._content.facts | {"_Group": self._content.group, "_Created": times[0]},
            [f"{self._id}-{key}" for key in keys],
            run_id=self._id,
        )
