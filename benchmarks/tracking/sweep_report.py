"""The W&B run at the end of a sweep, of type ``report``: what its runs say together, computed here and not by the server.

``python -m benchmarks.tracking.sweep_report FILE`` writes the run that FILE asks for. It is a process of its own, so that a
server's trouble holds nobody longer than stated.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.analysis.comparisons import protocols
from benchmarks.analysis.estimates import estimate_of_values, estimates, percent_of
from benchmarks.analysis.pareto import drawn_errors, front_probabilities, pareto_front
from benchmarks.analysis.seeds import same_but_seed, short_labels
from benchmarks.records.files import read_json, write_json
from benchmarks.records.runs import Run, load_runs
from benchmarks.report.figures import Trace, figure, front_line, plain, points, seed_curve
from benchmarks.report.learning_curves import columns_of, drawn_together, read_curves
from benchmarks.report.style import look_of
from benchmarks.tracking.content import reason
from benchmarks.tracking.mirror import give_up_without_server, remedy, resolve_mode
from benchmarks.tracking.process import end, start

FOLDER = Path("wandb", "reports")  # below the output root: what was requested, so that sync can send it
SPARE_S = 30  # beyond the client's own limits: imports and figures
FRAME = {"margin": None, "legend": None}  # W&B's own, as its panels are of any size
COLUMNS = (
    *("data", "network", "recipe", "n", "metric", "mean", "low", "high", "parameters", "macs", "train_flops"),
    *("on_front", "p_on_front"),
)


def write_report_run(output_root: str | Path, runs: Sequence[Run], logger: Mapping[str, Any]) -> None:
    """Write the report of a sweep's finished runs, once for the same results; returns within the logger's limits and 30 s.
    ``logger`` is the configuration's node; its ``mode: none`` does nothing."""
    root = Path(output_root)
    finished = [
        run
        for run in runs
        if run.value is not None
        and isinstance(run.record.get("run_id"), str)
        and run.part("wandb").get("mode") != "disabled"
    ]
    if logger["mode"] == "none" or not finished:
        return
    request = root / FOLDER / f"{report_id(finished)}.json"
    if request.exists():
        return
    directories = sorted(os.path.relpath(run.directory, root) for run in finished)
    try:
        request.parent.mkdir(parents=True, exist_ok=True)
        write_json(request, {"directories": directories, "logger": dict(logger), "mode": None})
    except OSError as error:
        print(f"W&B: the report was not written: {error.filename}: {error.strerror}", file=sys.stderr)
        return
    process = start("sweep_report", request, stdin=subprocess.DEVNULL)
    end(
        process,
        logger["init_timeout"] + logger["finish_timeout"] + SPARE_S,
        "W&B: the report was not taken",
        remedy(root),
    )


def report_id(runs: Sequence[Run]) -> str:
    """Return an id that is the same for the same results."""
    results = sorted((run.record["run_id"], run.value) for run in runs)
    return f"report-{hashlib.sha256(json.dumps(results).encode()).hexdigest()[:12]}"


def send(request: Path, logger: Mapping[str, Any], mode: str) -> None:
    """Write the report's run; the client's errors are raised, and ValueError where a run of the report is no longer there."""
    import plotly.graph_objects as go
    import wandb

    from benchmarks.tracking.wandb_run import folder_of, quiet_settings

    content = read_json(request) or {}
    root = request.parents[len(FOLDER.parts)]
    runs = []
    for name in content["directories"]:
        members = load_runs(root / name)[0] if (root / name).is_dir() else []
        if not members:
            raise ValueError(f"{name} is gone, and {request.stem} needs it")
        runs += members
    experiments = {str(run.record["experiment"]) for run in runs if run.record.get("experiment")}
    group = ", ".join(sorted(experiments or {run.data for run in runs}))
    run = wandb.init(
        entity=logger["entity"],
        project=logger["project"],
        dir=str(folder_of(root)),
        mode=mode,  # type: ignore[arg-type]
        id=request.stem,
        resume="allow",
        name=f"report {group}"[:128],
        group=group[:128],
        job_type="report",
        tags=sorted({run.data[:64] for run in runs}),
        config={"runs": [run.record["run_id"] for run in runs]},
        reinit="create_new",
        settings=quiet_settings(logger["init_timeout"], logger["finish_timeout"], x_disable_stats=True),
    )
    if not run.starting_step:
        figures = {
            f"{title}/{name}": wandb.Plotly(go.Figure(drawn["traces"], drawn["layout"]))
            for title, members in protocols(runs).items()
            for name, drawn in (("curves", curves(members, title)), ("front", front(members, title)))
        }
        run.log({"summary": wandb.Table(columns=list(COLUMNS), data=table(runs)), **figures})
    run.summary["status"] = "ok"
    run.finish(exit_code=0)


def table(runs: Sequence[Run]) -> list[list[Any]]:
    """Return a row of ``COLUMNS`` for each network of a data set and protocol; the 95 % interval is of the mean over seeds."""
    rows: list[list[Any]] = []
    for data, members in protocols(runs).items():
        groups = same_but_seed(members)
        estimated = estimates(groups)
        costs = [[float(run.macs or 0) for run in group] for group in groups]
        on_front = set(pareto_front([(fmean(macs), one.mean) for macs, one in zip(costs, estimated, strict=True)]))
        probabilities = front_probabilities(costs, drawn_errors(estimated), estimated)
        for index, (group, one) in enumerate(zip(groups, estimated, strict=True)):
            first = group[0]
            spent = fmean(run.train_flops or 0 for run in group)
            of_runs = [data, first.name, first.recipe, len(group), first.metric_label]
            of_mean = [one.mean, *(one.interval or (None, None))]
            of_cost = [first.parameters, first.macs, spent, index in on_front, probabilities[index]]
            rows.append([*of_runs, *of_mean, *of_cost])
    return rows


def curves(runs: Sequence[Run], title: str) -> dict[str, Any]:
    """Return validation metric over training FLOPs: for each network the mean of its seeds, several in a 95 % band. Seeds that
    were evaluated at different compute, as a detector's, are curves of their own."""
    groups = _groups(runs)
    traces: list[Trace] = []
    for group, label in groups:
        columns = read_curves(group, columns_of, [])
        for members in drawn_together(group, [tuple(group)], columns):
            own = [columns[id(run)] for run in members]
            errors = dict(zip(own[0]["train_flops"], zip(*(one["error"] for one in own), strict=True), strict=True))
            name = label if len(members) == len(group) else f"{label}, seed {members[0].seed}"
            limits = partial(_limits, percent=percent_of(group[0]))
            mean_in_band = seed_curve(errors, look_of(group[0]), name, limits, hoverinfo="all")
            traces += mean_in_band if len(members) > 1 else mean_in_band[1:]
    heading = f"{title}: validation over compute, mean of seeds, 95 % band"
    return _figure(traces, "training FLOPs", groups[0][0][0].val_label, heading)


def front(runs: Sequence[Run], title: str) -> dict[str, Any]:
    """Return test metric over MACs of one image: networks with 95 % intervals, and the Pareto front of the means."""
    groups = _groups(runs)
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in table([run for group, _ in groups for run in group])]
    best = front_line([(row["macs"], row["mean"]) for row in rows if row["on_front"]], colour="#888888")
    traces = [{**best, "name": "Pareto front"}]
    for (group, label), row in zip(groups, rows, strict=True):
        low, high = (0, 0) if row["low"] is None else (row["mean"] - row["low"], row["high"] - row["mean"])
        interval = {"type": "data", "symmetric": False, "array": [high], "arrayminus": [low]}
        style = {"name": label, "error_y": interval, "hoverinfo": "all"}
        traces.append(points([row["macs"]], [row["mean"]], look_of(group[0]), **style))
    heading = f"{title}: test over MACs, mean of seeds, 95 % interval"
    return _figure(traces, "MACs of one image", groups[0][0][0].metric_label, heading)


def _groups(runs: Sequence[Run]) -> list[tuple[list[Run], str]]:
    """Return the runs of a protocol that differ in the seed alone, with a label."""
    groups = [list(group) for group in same_but_seed(runs)]
    labels = short_labels([group[0] for group in groups], seeds=False)
    return [(group, plain(f"{label} (n = {len(group)})")) for group, label in zip(groups, labels, strict=True)]


def _figure(traces: Sequence[Trace], cost: str, metric: str, title: str) -> dict[str, Any]:
    return figure(traces, {"title": cost, "type": "log"}, {"title": metric}, title={"text": plain(title)}, **FRAME)


def _limits(values: Sequence[float], percent: bool) -> tuple[float, float]:
    return estimate_of_values(values, percent).interval or (fmean(values), fmean(values))


def main(request: Path) -> int:
    """Run the process; return 0 if the report was taken, online or into an offline file."""
    from benchmarks.tracking.wandb_run import prepare

    content = read_json(request) or {}
    root = request.parents[len(FOLDER.parts)]
    prepare(root.resolve())
    os.environ.pop("WANDB_SWEEP_ID", None)  # the report is no point of the sweep
    try:
        mode = resolve_mode(content["logger"]["mode"], root)
        if mode == "online":
            watched = root, threading.Event(), lambda wait_s: True
            threading.Thread(target=give_up_without_server, args=watched, daemon=True).start()
        send(request, content["logger"], mode)
    except Exception as error:  # of the client, its service or the network: of many classes
        print(f"W&B: the report: {reason(error)}; {remedy(root)}", file=sys.stderr)
        return 1
    write_json(request, content | {"mode": mode})
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
