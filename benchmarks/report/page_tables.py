"""What the tables and lists of the page hold; `templates/tables.html` lays them out."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.analysis import published
from benchmarks.analysis.seeds import SeedGroup, seed_groups, short_labels
from benchmarks.records.runs import Run
from benchmarks.report.status import STATES, TrialState
from benchmarks.units import MISSING, number

STOPPED = ("failed", "interrupted", "preempted")
PICTURES_PER_RUN = 2
PICTURE_BYTES = 6_000_000  # of all pictures of a page
SEEDS_NAMED = 12  # of those not started, in one line


def summary(runs: Sequence[Run], states: Sequence[TrialState]) -> tuple[str, list[tuple[str, bool]]]:
    """Return how many runs there are, and how many of each state with whether the list of unfinished ones names them."""
    counts = Counter(run.status for run in runs)
    killed = sum(trial.state == "killed" for trial in states)
    counts.update(running=-killed, killed=killed, missing=sum(trial.state == "missing" for trial in states))
    words = {"ok": "finished", "running": "running", "killed": "killed", **{status: status for status in STOPPED}}
    words["missing"] = "not started"
    parts = [
        (f"{counts[status]:,} {word}", status not in ("ok", "running"))
        for status, word in words.items()
        if counts[status] > 0
    ]
    return f"{len(runs):,} run{'s' if len(runs) > 1 else ''}" if runs else "No runs yet", parts


def failures(runs: Sequence[Run], states: Sequence[TrialState]) -> dict[str, Any]:
    """Return runs that stopped, trials whose processes are gone, and those of a sweep that never began."""
    stopped = [(index, run) for index, run in enumerate(runs) if run.status in STOPPED]
    killed = [trial for trial in states if trial.state == "killed"]
    seeds_of: dict[tuple[str, str], list[int]] = {}
    for trial in states:
        if trial.state == "missing":
            seeds_of.setdefault((trial.row, trial.data), []).append(trial.seed)
    missing = [
        (
            row,
            data,
            f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds[:SEEDS_NAMED]))}",
            max(0, len(seeds) - SEEDS_NAMED),
        )
        for (row, data), seeds in seeds_of.items()
    ]
    return {
        "any": bool(stopped or killed or missing),
        "stopped": stopped,
        "killed": killed,
        "killed_meaning": STATES["killed"][2],
        "missing": missing,
    }


def means(runs: Sequence[Run]) -> list[tuple[SeedGroup, str]]:
    """Return the runs that may be averaged, with their labels."""
    groups = seed_groups(runs)
    return list(zip(groups, short_labels([group.runs[0] for group in groups], seeds=False), strict=True))


def scores(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return, for every data set of masks, the scores of the finished runs and the published ones below them."""
    tables = []
    finished = [run for run in runs if run.status == "ok" and run.record.get("task") == "segmentation"]
    index_of = {id(run): index for index, run in enumerate(runs)}
    for data in dict.fromkeys(run.data for run in finished):
        members = [run for run in finished if run.data == data]
        rows: list[dict[str, Any]] = []
        for run, label in zip(members, short_labels(members), strict=True):
            overlap = {name: number(run.part("metrics").get(f"test/{name}")) for name in ("dice", "iou")}
            figures: Mapping[str, float | None] = {**overlap, **published.scores_of(run)}
            rows.append({"run": run, "index": index_of[id(run)], "label": label, "figures": figures})
        names = list(dict.fromkeys(name for row in rows for name in row["figures"]))
        for paper in published.scores(data):
            rows.append({"run": None, "label": paper.label, "source": paper.source, "figures": paper.figures})
        for row in rows:
            row["scores"] = [score_text(row["figures"].get(name)) for name in names]
        tables.append(
            {
                "data": data,
                "heads": [(data, False), *((name.replace("_", " "), True) for name in names)],
                "rows": rows,
                "notes": list(filter(None, dict.fromkeys(run.part("dataset").get("notes") for run in members))),
            }
        )
    return tables


def score_text(value: float | None) -> str:
    """Return a score with four decimals, a small one with six."""
    if value is None:
        return MISSING
    return f"{value:.4f}" if value >= 0.01 else f"{value:.6f}"


def pictures(runs: Sequence[Run]) -> tuple[list[tuple[int, str, str]], int]:
    """Return the first pictures of every run (its index, their name, the file in base 64), and how many found no room."""
    shown, room, left_out = [], PICTURE_BYTES, 0
    for index, run in enumerate(runs):
        for path in run.pictures[:PICTURES_PER_RUN]:
            room -= path.stat().st_size
            if room >= 0:
                name = f"{run.data} · {run.label} · {path.stem}"
                shown.append((index, name, base64.b64encode(path.read_bytes()).decode()))
            else:
                left_out += 1
    return shown, left_out
