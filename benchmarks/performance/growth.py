"""What commands over runs take as the runs grow in number: ``python -m benchmarks measure growth``.

Also what the launcher of a sweep takes for each trial, and how images/s grow with processes and threads.
"""

import argparse
import itertools
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.config.compose import expand_all
from benchmarks.config.trial import config_hash, config_hash_without_seed
from benchmarks.performance import subprocesses
from benchmarks.performance.cases import chosen
from benchmarks.performance.document import RATE, MeasuredTable, add_write_option, exit_code, this_machine
from benchmarks.performance.launching import ONE_STEP, RUN
from benchmarks.performance.processes import DAY_S, whole
from benchmarks.records.files import CHECKPOINTS, CONFIG, RECORD, read_json, write_config, write_json
from benchmarks.records.hardware import cores
from benchmarks.records.runs import load_runs
from benchmarks.terminal import at_least, with_bar
from benchmarks.training.tuned_settings import specification

# Widths of ResNet-20 and learning rates by the number of runs, each with as many seeds.
SHAPES = {10: (1, 2), 100: (4, 5), 1_000: (20, 10), 10_000: (100, 20)}
SEEDS = 5
PARTS = ("runs", "cores")
SHARED = ("data=digits", "trainer.accelerator=cpu", "cluster.threads_per_process=1", "logger=none")
TRAINED = ("model=resnet", "model.base_channels=2", "recipe.epochs=3", f"seed=range({SEEDS})")
LAUNCHED = (10, 50, 100)  # trials of one step; fewer than three numbers show no growth
CALLS, LONG_S = 3, 20.0  # of a command, whose medians count; of one that takes this long a single one
LIMIT = 1.25  # times what a run adds up to the number before
SLOWER_S = 0.3  # of more runs: less is a matter of chance
NETWORKS = ("resnext", "densenet")
PICTURE = "growth.png"
FIRST = "page"  # is written for the first time, once
TABLE = MeasuredTable(
    "growth",
    "Many runs",
    {
        "what": ("command", "s"),
        "runs": ("runs", ",d"),
        "processor_s": ("processor, s", ".2f"),
        "wall_s": ("wall, s", ".2f"),
        "added_ms": ("a run more, ms", ".2f"),
        "memory_mib": ("peak memory, MiB", ",.0f"),
    },
    f"Runs are the trials of a sweep over widths of ResNet-20 and learning rates with {SEEDS} seeds each, finished, with the "
    "records, histories and outcomes of test images of real runs. `plan` is of the same sweep before any run, `page` the page "
    "the first time, `report` the table and the page again, `sweep, finished` the sweep's own command asked again. "
    "`sweep, launcher` is the process that starts trials of one step, without the trials. Processor time is of a process and "
    f"all that it has started. Medians of {CALLS} calls, but for `plan`, `page`, the launcher and where a call takes "
    f"{LONG_S:.0f} s. A run more: what it adds between this number of runs and the one before. The command fails where "
    f"a run adds, since the fewest runs, over {LIMIT:g} times what it did up to the number before.\n\n"
    f"![Processor time and peak memory of each command over the number of runs](performance/{PICTURE})",
)
CORES = MeasuredTable(
    "growth_cores",
    "Processes and threads",
    {
        "network": ("network", "s"),
        "batch": ("global batch", "d"),
        "processes": ("processes", "d"),
        "threads": ("threads each", "d"),
        "images_per_s": ("training, images/s", RATE),
        "speed_up": ("speed-up", ".2f"),
    },
    "Training steps on CIFAR-10's image size, each process with its equal share of the same global batch, measured as networks "
    "alone are; speed-up is against one process with one thread.\n\n"
    "![Images per second in training over processes and threads](performance/growth_cores.png)",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``measure growth``."""
    parser.description = (
        "Time plan, status, report, page, export and a sweep over more and more runs, the launcher of a sweep, and training "
        "over processes and threads. Exit code 1 where a command takes more for a run of many than of few."
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: both")
    parser.add_argument("--most", type=at_least(1_000), default=max(SHAPES), help="runs; default: %(default)s")
    add_write_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the tables; return 0, or 1 where a command grows faster than the runs.

    Raises:
        ValueError: not on Linux, no such part, or a command that fails.
    """
    parts = chosen(arguments.parts, PARTS, "part")
    steep: list[str] = []
    if "runs" in parts:
        rows = [*over_runs([size for size in SHAPES if size <= arguments.most]), *over_trials(LAUNCHED)]
        TABLE.report(arguments, rows, this_machine("cpu") | {"threads": 1})
        steep = above_linear(rows)
    if "cores" in parts:
        CORES.report(arguments, over_cores(), this_machine("cpu") | {"threads": cores()})
    return exit_code(steep)


def sweep_of(size: int) -> list[str]:
    """Return the overrides of a sweep of so many trials."""
    widths, rates = SHAPES[size]
    return [
        *SHARED,
        "model=resnet",
        "model.base_channels=" + ",".join(str(width + 2) for width in range(widths)),
        "recipe.optimizer.lr=" + ",".join(f"{(rate + 1) / 1000:g}" for rate in range(rates)),
        f"seed=range({SEEDS})",
    ]


def over_runs(sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Return rows of the table for the commands over finished runs."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        trained = Path(folder, "trained")
        whole([sys.executable, str(RUN), "-m", *TRAINED, *SHARED, f"output_root={trained}"])
        whole(commands(trained, ())[FIRST])  # what is read from disk for the first time is of no number of runs
        for size in with_bar(sizes, "runs"):
            root = Path(folder, str(size))
            sweep = [*sweep_of(size), f"output_root={root}"]
            planned, _ = whole(benchmarks("plan", *sweep, "--flops-per-s", "1e12"))
            rows.append({"what": "plan", "runs": size, **planned})
            subprocesses.ask("performance.growth", {"overrides": sweep, "runs": str(trained)}, 1, limit_s=DAY_S)
            for what, command in commands(root, sweep).items():
                rows.append({"what": what, "runs": size, **(whole(command)[0] if what == FIRST else typical(command))})
    return with_added(rows)


def typical(command: Sequence[str]) -> dict[str, float]:
    """Return what a command takes, medians over calls."""
    taken = [whole(command)[0]]
    while len(taken) < CALLS and taken[0]["wall_s"] < LONG_S:
        taken.append(whole(command)[0])
    return {name: statistics.median(one[name] for one in taken) for name in taken[0]}


def commands(root: Path, sweep: Sequence[str]) -> dict[str, list[str]]:
    """Return the commands over the finished runs in a folder, by name."""
    page = f"from benchmarks.report.page import write_page; write_page({str(root)!r})"
    return {
        "status": benchmarks("status", str(root)),
        FIRST: [sys.executable, "-c", page],
        "report": benchmarks("report", str(root)),
        "export": benchmarks("export", str(root), "--format", "csv", "--out", str(root / "tables")),
        "sweep, finished": [sys.executable, str(RUN), "-m", *sweep],
    }


def benchmarks(*words: str) -> list[str]:
    """Return the command line of one of the suite's commands."""
    return [sys.executable, "-m", "benchmarks", *words]


def over_trials(sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Return rows of the table for the launcher of a sweep of trials that train one step."""
    rows = []
    for size in with_bar(sizes, "trials"):
        with tempfile.TemporaryDirectory() as root:
            words = [*ONE_STEP, *SHARED[2:], f"seed=range({size})", f"output_root={root}"]
            measured, _ = whole([sys.executable, str(RUN), "-m", *words])
            # It mostly waits for the trials, whose wall time it would show.
            own = {"processor_s": measured["own_processor_s"], "wall_s": None, "memory_mib": measured["own_memory_mib"]}
            rows.append({"what": "sweep, launcher", "runs": size, **own})
    return with_added(rows)


def with_added(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows by command and number of runs, each with the milliseconds that a run adds since the row before."""
    result: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row["what"], row["runs"])):
        added = None
        if result and (before := result[-1])["what"] == row["what"]:
            added = 1e3 * (row["processor_s"] - before["processor_s"]) / (row["runs"] - before["runs"])
        result.append({**row, "added_ms": added})
    return result


def above_linear(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each command to which a run adds more among many runs than among fewer, since its fewest.

    Not since the number before: where a table gets too long to be styled, a run more costs less at once.
    """
    lines = []
    for _, group in itertools.groupby(rows, key=lambda row: row["what"]):
        fewest, *others = group
        added = [1e3 * (row["processor_s"] - fewest["processor_s"]) / (row["runs"] - fewest["runs"]) for row in others]
        for (before, after), (fewer, more) in zip(itertools.pairwise(others), itertools.pairwise(added), strict=True):
            if (more - LIMIT * max(fewer, 0.0)) * (after["runs"] - fewest["runs"]) > 1e3 * SLOWER_S:
                lines.append(
                    f"{after['what']}: a run adds {more:.2f} ms up to {after['runs']:,} runs and {fewer:.2f} ms up to "
                    f"{before['runs']:,}"
                )
    return lines


def over_cores() -> list[dict[str, Any]]:
    """Return rows of the table of processes and threads, as many as there are cores at most."""
    rows: list[dict[str, Any]] = []
    for network, (processes, threads) in itertools.product(NETWORKS, splits(cores())):
        words = [f"model={network}", "data=cifar10", "recipe.batch_size=8", f"trainer.devices={processes}"]
        [trial] = expand_all([*words, f"cluster.threads_per_process={threads}", "trainer.accelerator=cpu"])
        base = specification(trial.config) | {"measured_s": 10.0}
        [step] = subprocesses.steps(base, [{"forward": False}], processes)
        rate = base["batch"] * processes / step["step_s"]
        alone = next((row["images_per_s"] for row in rows if row["network"] == trial.config["name"]), rate)
        place = {"network": trial.config["name"], "batch": base["batch"] * processes}
        rows.append(
            {**place, "processes": processes, "threads": threads, "images_per_s": rate, "speed_up": rate / alone}
        )
    return rows


def splits(count: int) -> Iterator[tuple[int, int]]:
    """Yield processes and threads each, powers of two of both that so many cores hold, one of each first."""
    powers = [2**power for power in range(count.bit_length()) if 2**power <= min(count, 8)]
    yield from ((processes, threads) for processes in powers for threads in powers if processes * threads <= count)


def main(argument: dict[str, Any]) -> dict[str, int]:
    """Write the run folders of a large sweep from a few real ones: a finished run for each trial; return how many ``runs``.

    In a process of its own: what holds thousands of configurations would count as memory of each process that it starts.

    Args:
        argument: ``overrides`` of the sweep; ``runs``, a folder of finished ones, whose results are taken in turns.
    """
    runs, _ = load_runs(argument["runs"])
    macs = min(run.macs or 1 for run in runs)
    trials = expand_all(argument["overrides"])
    for index, trial in enumerate(trials):
        run, config = runs[index % len(runs)], trial.config
        shutil.copytree(run.directory, trial.directory, ignore=shutil.ignore_patterns(CHECKPOINTS, RECORD, CONFIG))
        # Costs that rise with the width, as those of real networks do: equal ones would make a front of one point.
        scale = (config["model"]["base_channels"] / 2) ** 2 * macs / (run.macs or 1)
        record = read_json(run.directory / RECORD) or {}
        record |= {"name": config["name"], "seed": config["seed"], "overrides": trial.overrides}
        record |= {"recipe": config["recipe"]["name"], "config_hash": config_hash(config)}
        record |= {"config_hash_without_seed": config_hash_without_seed(config)}
        for block, key in (("complexity", "params"), ("complexity", "macs"), ("compute", "train_flops")):
            record[block][key] = int(record[block][key] * scale)
        write_json(trial.directory / RECORD, record)
        write_config(trial.directory, config)
    return {"runs": len(trials)}
