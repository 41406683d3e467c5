"""Whole processes in turns, ours beside scripts without the suite: ``python -m benchmarks measure processes``."""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from benchmarks.config.compose import expand_all
from benchmarks.config.trial import ConfigurationError
from benchmarks.launch.checks import refusal
from benchmarks.launch.process import clean_environment
from benchmarks.performance.document import MeasuredTable, add_write_option, interval, read_records, this_machine
from benchmarks.performance.interleaved import with_interval
from benchmarks.performance.launching import RUN
from benchmarks.records.files import RECORD, read_json
from benchmarks.terminal import at_least

USUAL = ("model=resnet", "data=digits", "recipe.epochs=5")
OURS = {"ours": (), "ours, bfloat16": ("trainer.precision=bf16-mixed",)}  # arguments of run.py
SCRIPTS = ("lightning", "bare")
BESIDE = "bare"
ABSENT = (
    "whole scripts of torchvision, timm and hysts/pytorch_image_classification: they read no data that is bundled here"
)
TOLERANCE = 0.1  # of a committed ratio
SAME = ("network", "data", "epochs", "process")
TABLE = MeasuredTable(
    "processes",
    "Whole processes",
    {
        "network": ("network", "s"),
        "data": ("data", "s"),
        "epochs": ("epochs", "d"),
        "process": ("process", "s"),
        "processor_s": ("processor, s", ".1f"),
        **interval("ratio", "ratio to bare", ".2f"),
        "wall_s": ("wall, s", ".1f"),
        "memory_mib": ("peak memory, MiB", ",.0f"),
        "error": ("test error, %", ".2f"),
        "repeats": ("repeats", "d"),
    },
    "Each is started as from a shell and measured to its end, all of them once in every repeat: imports, data, training, "
    "evaluation after each epoch, test, and what it writes. Seconds are medians of processor time of a process and of all that "
    "it has started, as Linux counts them; ratios are within a repeat, with the 95 % interval of their median; memory is of "
    "the largest process. `ours` is `run.py`, with the table and the page; `lightning` a script as Lightning's documentation "
    "writes it, `bare` a loop in plain torch; all with the same network, batches, schedule, and one thread.",
    same=SAME,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``measure processes``."""
    parser.description = (
        "Time whole processes in turns, from their start to their end: ours by default and in bfloat16, a plain Lightning "
        "script and a bare loop. Exit code 1 where, with --check, ours takes more processor time than the Lightning script, or "
        f"{TOLERANCE:.0%} more than committed as a ratio to the bare loop."
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help=f"as for run.py, a classification in memory; default: {' '.join(USUAL)}",
    )
    parser.add_argument("--repeats", type=at_least(1), default=5, help="default: 5")
    parser.add_argument("--check", action="store_true", help="compare with limits and committed ratios, on any machine")
    add_write_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the table; return 0, or 1 where ``--check`` finds ours slower than allowed.

    Raises:
        ValueError: a network that cannot be trained here, or another task.
        RuntimeError: a process fails.
    """
    overrides = [*(arguments.overrides or USUAL), "trainer.accelerator=cpu", "cluster.threads_per_process=1"]
    [trial] = expand_all(overrides, multirun=False)
    if problem := refusal(trial):
        raise ConfigurationError(problem)
    config = trial.config
    if config["data"]["task"] != "classification" or config["data"].get("loading", "memory") != "memory":
        raise ValueError("the scripts beside ours classify images that are in memory, as data=digits and data=cifar10")
    if sys.platform != "linux":
        raise ValueError("the processor time of all that a process has started is known on Linux alone")
    adopt_orphans()
    committed = read_records().get(f"{TABLE.kind}-cpu", {"rows": []})["rows"]
    results: dict[str, list[dict[str, float]]] = {}
    for _ in track(range(arguments.repeats), "processes", console=Console(stderr=True), transient=True):
        for name, one in in_turn(config, overrides).items():
            results.setdefault(name, []).append(one)
    rows = summarise(results, config)
    TABLE.report(arguments, rows, this_machine("cpu") | {"threads": 1}, f" Left out: {ABSENT}.")
    print(f"left out   {ABSENT}")
    slow = slower(rows, committed) if arguments.check else []
    for line in slow:
        print(line, file=sys.stderr)
    return int(bool(slow))


def in_turn(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, dict[str, float]]:
    """Run each process once; return its processor and wall seconds, peak memory in MiB and test error in percent."""
    results = {}
    for name, more in OURS.items():
        with tempfile.TemporaryDirectory() as root:
            command = [sys.executable, str(RUN), *overrides, *more, "logger=none", f"output_root={root}"]
            measured, _ = whole(command)
            [record] = (read_json(path) for path in Path(root).glob(f"*/*/*/*/{RECORD}"))
            assert record is not None
            results[name] = measured | {"error": record["metrics"]["test/top1_err"]}
    for name in SCRIPTS:
        command = [sys.executable, "-m", "benchmarks.performance.whole_scripts", json.dumps(script(config, name))]
        measured, output = whole(command)
        results[name] = measured | json.loads(output.splitlines()[-1])
    return results


def script(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what a script without the suite is given."""
    recipe = config["recipe"]
    return {
        **{key: config[key] for key in ("model", "datamodule", "seed")},
        **{key: recipe[key] for key in ("optimizer", "scheduler", "epochs")},
        "script": name,
        "threads": 1,
    }


def adopt_orphans() -> None:
    """Make this process the parent of all that its children leave behind, so that their processor time is counted."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1)


def whole(command: Sequence[str]) -> tuple[dict[str, float], str]:
    """Run a command to its end; return its processor and wall seconds, peak memory in MiB, and what it printed.

    Processor time is of all its processes, memory of the largest; ``own_processor_s`` and ``own_memory_mib`` are of the one
    that was started and of those that it has waited for. A run's own process is started by a server, which its launcher does
    not wait for: it comes to us, see ``adopt_orphans``.

    Raises:
        RuntimeError: it fails.
    """
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL, env=clean_environment(1))
        processor_s, memory_kib, wall_s = 0.0, 0, 0.0
        own: dict[str, float] = {}
        with suppress(ChildProcessError):  # none is left
            while True:
                pid, status, usage = os.wait4(-1, 0)
                processor_s += usage.ru_utime + usage.ru_stime
                memory_kib = max(memory_kib, usage.ru_maxrss)
                if pid == process.pid:
                    wall_s = time.perf_counter() - started
                    own = {"processor_s": usage.ru_utime + usage.ru_stime, "memory_mib": usage.ru_maxrss / 2**10}
                    process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)[:200]} failed with exit code {process.returncode}")
        output.seek(0)
        text = output.read()
    measured = {"processor_s": processor_s, "wall_s": wall_s, "memory_mib": memory_kib / 2**10}
    return measured | {f"own_{key}": value for key, value in own.items()}, text


def summarise(results: Mapping[str, Sequence[Mapping[str, float]]], config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return rows of the table: medians, and ratios of processor time to the bare loop of the same repeat."""
    rows = []
    for name, repeats in results.items():
        ratios = [
            one["processor_s"] / beside["processor_s"] for one, beside in zip(repeats, results[BESIDE], strict=True)
        ]
        medians = {key: statistics.median(one[key] for one in repeats) for key in repeats[0]}
        place = {"network": config["name"], "data": config["data"]["name"], "epochs": config["recipe"]["epochs"]}
        rows.append({**place, "process": name, **medians, **with_interval("ratio", ratios), "repeats": len(repeats)})
    return rows


def slower(rows: Sequence[Mapping[str, Any]], committed: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return where ours takes more processor time than allowed, a line each; the lower end of its interval is compared."""
    ratios = {row["process"]: row["ratio"] for row in rows}
    before = {tuple(row[key] for key in SAME): row["ratio"] for row in committed}
    lines = []
    for row in rows:
        if row["process"] not in OURS:
            continue
        allowed = before.get(tuple(row[key] for key in SAME), 0.0) * (1 + TOLERANCE) or ratios["lightning"]
        if row["ratio_low"] > allowed:
            lines.append(
                f"{row['network']}, {row['process']}: {row['ratio']:.2f} times the processor time of a bare loop "
                f"({row['ratio_low']:.2f} to {row['ratio_high']:.2f}), {allowed:.2f} is allowed"
            )
    return lines
