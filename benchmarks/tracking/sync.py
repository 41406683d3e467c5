"""Makes the W&B server equal to the local records: ``python -m benchmarks wandb sync [FOLDER]``.

A run is sent from its record, history and pictures, never from W&B's own offline files: those end torn after kill -9 and are
several after a resume, while ``history.jsonl`` is whole. So one way serves offline, half-uploaded and killed runs alike, and
what is there already is not sent again. Every run is then read back and held against its folder.
"""

import argparse
import base64
import hashlib
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.records.files import CONFIG, HISTORY, read_config, read_json
from benchmarks.records.runs import Run, load_runs, output_root_of
from benchmarks.terminal import at_least, with_bar
from benchmarks.tracking.content import ended, exit_code, mirrored, reason, summary
from benchmarks.tracking.sweep_report import FOLDER, send
from benchmarks.tracking.wandb_run import (
    ASK_TIMEOUT_S,
    artifacts,
    close,
    connect,
    log_rows,
    media,
    open_run,
    quiet_settings,
    supersede_offline_files,
)

SEND_TIMEOUT_S = 600  # for one run's files
READ_BACK_S = 60  # that a server may take to show what it has been sent
ABSENT = "not on the server"


@dataclass(frozen=True, eq=False)
class Tracked:
    """A run folder that belongs on the server: ``record``, of a run that was killed with its launcher closed as such, and
    ``rows``, its history under the server's names."""

    directory: Path
    record: dict[str, Any]
    config: dict[str, Any]
    rows: list[dict[str, Any]]

    @classmethod
    def of(cls, run: Run, to: Mapping[str, str]) -> "Tracked | None":
        """Read the folder; return None for a run without W&B. ``to``: entity and project, where they are not to be those of the
        run. Raises ValueError where it is not fit to be sent."""
        try:
            config = read_config(run.directory, {"logger": dict, "logger.mode": str})
            logger = config["logger"]
        except (OSError, ValueError):
            raise ValueError(f"no readable {CONFIG}, so that its place on the server is not known") from None
        if logger["mode"] == "none":
            return None
        if not isinstance(logger.get("project"), str) or not isinstance(logger.get("entity"), str | None):
            raise ValueError(f"{CONFIG} does not say where it belongs on the server: logger.project, logger.entity")
        config["logger"] = logger | to
        return cls(run.directory, ended(run), config, mirrored(run.history))

    def missing(self, api: Any) -> str | None:
        """Return what the server lacks first, in words; None if it holds the run. Raises ValueError where sending cannot
        help."""
        logger, run_id = self.config["logger"], self.record["run_id"]
        remote = find(api, "/".join(filter(None, (logger["entity"], logger["project"], run_id))))
        if remote is None:
            return ABSENT
        rows = [_own(row) for row in remote.scan_history()]
        if len(rows) > len(self.rows) or not all(map(equal, rows, self.rows)):
            raise ValueError(
                f"the server's history ({len(rows)} rows) is not that of {HISTORY} ({len(self.rows)} rows): "
                "somebody else wrote to this run; delete it there"
            )
        if len(rows) < len(self.rows):
            return f"{len(self.rows) - len(rows)} of {len(self.rows)} rows"
        state = "failed" if exit_code(self.record) else "finished"
        if remote.state != state:
            return f"the state {state} (it is {remote.state})"
        stored = dict(remote.summary)
        complete = {"error": None} | summary(self.record, self.rows)
        keys = [key for key, value in complete.items() if not equal({key: stored.get(key)}, {key: value})]
        if keys:
            return f"the summary's {', '.join(keys)}"
        return self._missing_files(remote, stored)

    def send(self) -> None:
        """Send the rows that the server lacks, and everything else, with the real client."""
        with tempfile.TemporaryDirectory() as scratch:
            run = open_run(
                self.record,
                self.config,
                mode="online",
                dir=scratch,
                reinit="create_new",
                settings=quiet_settings(
                    ASK_TIMEOUT_S,
                    SEND_TIMEOUT_S,
                    # This machine and this process are not the run's.
                    disable_git=True,
                    x_disable_machine_info=True,
                    x_disable_meta=True,
                    x_disable_stats=True,
                    x_save_requirements=False,
                ),
            )
            log_rows(run, self.record, self.rows, run.starting_step)
            close(run, self.directory, self.record, self.config)

    def _missing_files(self, remote: Any, stored: Mapping[str, Any]) -> str | None:
        files = {file.name for file in remote.files()}
        for key in media(self.directory, self.record):
            entry = stored.get(key) or {}
            if not (names := entry.get("filenames") or [entry.get("path")]) or not files.issuperset(names):
                return key
        committed = {artifact.name.partition(":")[0]: artifact for artifact in remote.logged_artifacts()}
        for name, paths in artifacts(self.directory, self.record, self.config).items():
            if name not in committed:
                return f"the artifact {name}"
            entries = committed[name].manifest.entries
            for path in paths:
                if path.name not in entries or entries[path.name].digest != _digest(path):
                    return f"{path.name} of the artifact {name}"
        return None


def sync(run: Tracked, api: Any) -> tuple[bool, str | None]:
    """Complete one run on the server; return whether something was sent, and what is wrong in the end (None if nothing)."""
    sent = False
    try:
        missing = run.missing(api)
        if missing is not None:
            run.send()
            sent = True
            until = time.monotonic() + READ_BACK_S
            while (missing := run.missing(api)) is not None and time.monotonic() < until:
                time.sleep(1)
    except Exception as error:  # of the client, its service or the network: of many classes
        return sent, reason(error)
    if missing is None:
        supersede_offline_files(output_root_of(run.directory), run.record["run_id"])
        return sent, None
    return sent, f"sent, but {READ_BACK_S} s later the server lacks {missing}" if missing != ABSENT else ABSENT


def sync_report(request: Path, to: Mapping[str, str], api: Any) -> tuple[bool, str | None]:
    """Complete the report of a sweep on the server; return as ``sync``."""
    try:
        logger = (read_json(request) or {})["logger"] | to
        path = "/".join(filter(None, (logger["entity"], logger["project"], request.stem)))
        for sent in (False, True):
            remote = find(api, path)
            if remote is not None and remote.state == "finished" and "summary" in dict(remote.summary):
                supersede_offline_files(request.parents[len(FOLDER.parts)], request.stem)
                return sent, None
            if not sent:
                send(request, logger, "online")
    except Exception as error:  # of the client, its service or the network: of many classes
        return False, reason(error)
    return True, "sent, but the server does not show it"


def find(api: Any, path: str) -> Any:
    """Return the server's run, or None where it has none of that name."""
    import wandb

    api.flush()  # it remembers what it has read
    try:
        return api.run(path)
    except (ValueError, wandb.errors.CommError) as error:
        if "Could not find run" in str(error):
            return None
        raise


def equal(remote: Mapping[str, Any], local: Mapping[str, Any]) -> bool:
    """Tell whether two rows are equal; whole numbers beyond 2^53 may come back as floats."""
    return remote.keys() == local.keys() and all(_same(remote[key], local[key]) for key in local)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``wandb sync``."""
    parser.description = (
        "Send runs that were made offline, or only came half-way, to the W&B server, and read them back. It may be called as "
        "often as one likes. Exit code 1 if a run is not on the server in the end."
    )
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default="outputs", type=Path, help="default: outputs")
    parser.add_argument(
        "--to", metavar="ENTITY/PROJECT", help="instead of logger.entity and logger.project of the runs"
    )
    parser.add_argument("--workers", type=at_least(1), default=4, help="runs at a time; default: 4")


def run(arguments: argparse.Namespace) -> int:
    """Send what is missing; return 0 if every run is on the server, complete, else 1. Raises ValueError where ``--to`` is not
    ENTITY/PROJECT or the server refuses the client, FileNotFoundError where there is no such folder."""
    names = arguments.to.split("/") if arguments.to else []
    to = dict(zip(("entity", "project"), names, strict=False))
    if arguments.to is not None and (len(names) != 2 or not all(names)):
        raise ValueError(f"--to is ENTITY/PROJECT, got {arguments.to!r}")
    runs, problems = load_runs(arguments.folder)
    jobs: list[tuple[Path, Callable[[Any], tuple[bool, str | None]]]] = []
    untracked = 0
    for run in runs:
        try:
            tracked = Tracked.of(run, to)
        except ValueError as error:
            problems.append(f"{run.directory}: {reason(error)}")
            continue
        untracked += tracked is None
        jobs += [(run.directory, partial(sync, tracked))] if tracked is not None else []
    jobs += [
        (path, partial(sync_report, path, to)) for path in sorted(arguments.folder.joinpath(FOLDER).glob("*.json"))
    ]
    sent = complete = 0
    if jobs:
        api = connect(arguments.folder)
        with ThreadPoolExecutor(arguments.workers) as pool:
            results = pool.map(lambda job: job[1](api), jobs)
            for (place, _), (was_sent, problem) in zip(jobs, with_bar(results, "syncing", len(jobs)), strict=True):
                sent += was_sent
                complete += problem is None
                problems += [f"{place}: {problem}"] if problem is not None else []
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    if problems:
        import wandb

        wandb.teardown(exit_code=1)  # its service would hold the ids of runs that were begun
    left_out = f"; {untracked} without W&B are left out" if untracked else ""
    print(f"{complete} of {len(jobs)} runs are on the server, complete; {sent} sent now{left_out}")
    return 1 if problems else 0


def _own(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without what the client adds to it, and without values that are absent."""
    return {key: value for key, value in row.items() if not key.startswith("_") and value is not None}


def _same(remote: Any, local: Any) -> bool:
    if isinstance(local, int | float) and isinstance(remote, int | float):
        return math.isclose(remote, local, rel_tol=1e-12)
    return remote == local


def _digest(path: Path) -> str:
    """Return the MD5 of a file as a manifest states it."""
    with open(path, "rb") as file:
        return base64.b64encode(hashlib.file_digest(file, "md5").digest()).decode()
