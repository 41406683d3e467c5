"""Whole processes in turns, ours beside scripts without the suite: ``python -m benchmarks measure processes``."""

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.performance.document import MeasuredTable, add_write_option, exit_code, interval, named, this_machine
from benchmarks.performance.interleaved import with_interval
from benchmarks.performance.launching import RUN
from benchmarks.performance.peer_scripts import PEERS, check, write_images
from benchmarks.performance.subprocesses import ask
from benchmarks.performance.throughput import trainable
from benchmarks.records.files import RECORD, read_json
from benchmarks.terminal import add_overrides, at_least, with_bar

USUAL = ("model=resnet", "data=digits", "recipe.epochs=5")
HALF = "ours, bfloat16"
OURS = {"ours": (), HALF: ("trainer.precision=bf16-mixed",)}  # arguments of run.py
SCRIPTS = ("lightning", "bare")
BESIDE = "bare"
TOLERANCE = 0.1  # of a committed ratio
CACHE = "cache"  # of decoded images, in the folder of runs
DAY_S = 86_400  # no process takes as long
TABLE = MeasuredTable(
    "processes",
    "Whole processes",
    {
        **named(network="s", data="s", epochs="d", process="s"),
        "processor_s": ("processor, s", ".1f"),
        **interval("ratio", "ratio to bare", ".2f"),
        "wall_s": ("wall, s", ".1f"),
        "memory_mib": ("peak memory, MiB", ",.0f"),
        "error": ("test error, %", ".2f"),
        "repeats": ("repeats", "d"),
        "versions": ("with", "s"),
    },
    "Each is started as from a shell and measured to its end, all of them once in every repeat: imports, data, training, "
    "evaluation after each epoch, test, and what it writes. Seconds are medians of processor time of a process and of all "
    "that it has started, as Linux counts them; ratios are within a repeat, with the 95 % interval of their median, of "
    "fewer than six repeats the lowest and the highest; memory is of the largest process. `ours` is `run.py`, with the "
    "table and the page; `lightning` a script as Lightning's documentation writes it, `bare` a loop in plain torch; all "
    "with the same network, batches, schedule, and one thread. `torchvision` and `timm` are these projects' training "
    "scripts as they are, in an environment of their own, which train our network with the same batch size, epochs, "
    "learning rate, schedule and weight decay, and with one worker. They read PNG files from folders, which are written "
    "before; the others read their own source, as their users do, CIFAR-10 as a run keeps it once decoded. The scripts have "
    "no option for a padded crop, and torchvision's none for mean, deviation and flip: these are replaced by ours. Nor do "
    "they test after training: a few lines after them do, on the same files. timm decays no biases and no normalisation.",
    same=("network", "data", "epochs", "process"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``measure processes``."""
    parser.description = (
        "Time whole processes in turns, from their start to their end: ours by default and in bfloat16, a plain Lightning "
        "script, a bare loop, and other projects' training scripts where their sources are given. Exit code 1 where, with "
        "--check, ours takes more processor time than the Lightning script, or "
        f"{TOLERANCE:.0%} more than committed as a ratio to the bare loop: on this machine, else the greatest of others."
    )
    add_overrides(parser, f", a classification in memory; default: {' '.join(USUAL)}")
    for name, peer in PEERS.items():
        parser.add_argument(
            f"--{name}", type=Path, metavar="FOLDER", help=f"sources of {name}, to time its {peer.script} as well"
        )
    parser.add_argument(
        "--python",
        default=sys.executable,
        metavar="PYTHON",
        help="the interpreter that runs these, as .venv/timm/bin/python of make test-timm; default: this one",
    )
    parser.add_argument("--repeats", type=at_least(1), default=5, help="default: 5")
    parser.add_argument("--check", action="store_true", help="compare with limits and committed ratios, on any machine")
    add_write_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the table; return 0, or 1 where ``--check`` finds ours slower than allowed.

    Raises:
        ValueError: a network that cannot be trained here, another task, or a process that fails.
    """
    import torch
    from hydra.utils import instantiate

    from benchmarks.training.options import has_bf16

    overrides = [*(arguments.overrides or USUAL), "trainer.accelerator=cpu", "cluster.threads_per_process=1"]
    chosen = {name: folder for name in PEERS if (folder := getattr(arguments, name))}
    bfloat16 = has_bf16(torch.device("cpu"))
    absent = [
        f"{name}: give its sources by --{name}, and --python where its packages are elsewhere"
        for name in PEERS
        if name not in chosen
    ]
    left_out = "; ".join([*absent, *([] if bfloat16 else ["bfloat16: this processor has no such arithmetic"])])
    environment = this_machine("cpu") | {"threads": 1}
    committed = TABLE.committed("cpu", environment["device_name"])  # before they are written anew
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        config = trainable([*overrides, f"output_root={root}"]).config
        if config["data"]["task"] != "classification" or config["data"].get("loading", "memory") != "memory":
            raise ValueError(
                "the scripts beside ours classify images that are in memory, as data=digits and data=cifar10"
            )
        (root / CACHE).mkdir()
        splits = instantiate(config["datamodule"]["source"])()  # decoded here once, if need be, for all that follow
        peers = peer_commands(config, chosen, arguments.python, root, splits, bfloat16)
        del splits
        repeats = range(arguments.repeats)
        ours = {name: more for name, more in OURS.items() if bfloat16 or name != HALF}
        turns = [in_turn(config, overrides, ours, peers, root) for _ in with_bar(repeats, "processes")]
    results = {name: [turn[name] for turn in turns] for name in turns[0]}
    rows = summarise(results, config)
    more = f" Left out: {left_out}." if left_out else ""
    TABLE.report(arguments, rows, environment, more)
    if left_out:
        print(f"left out   {left_out}")
    return exit_code(slower(rows, committed) if arguments.check else [])


def peer_commands(
    config: Mapping[str, Any], folders: Mapping[str, Path], python: str, root: Path, splits: Any, bfloat16: bool
) -> dict[str, list[str]]:
    """Return the commands of other projects' training scripts by name, and write the images that they read into ``root``.

    Args:
        folders: sources by the names of ``PEERS``.
        splits: the images, a ``datamodules.readers.splits.Splits``.
        bfloat16: whether scripts that can are timed in it as well.

    Raises:
        ValueError: no such script is there, or none can do the same work.
    """
    if not folders:
        return {}
    data, recipe = config["datamodule"], config["recipe"]
    work = {
        **{key: data[key] for key in ("batch_size", "eval_batch_size", "mean", "std", "augment")},
        **{key: recipe[key] for key in ("epochs", "optimizer", "scheduler")},
        **{"model": config["model"], "seed": config["seed"], "size": config["data"]["image_size"]},
        **{"images": str(root / "images"), "output": str(root / "output")},
    }
    check(work)
    commands = {}
    for name, folder in folders.items():
        if not (folder / PEERS[name].script).is_file():
            raise ValueError(f"--{name} {folder}: there is no {PEERS[name].script}")
        for half in (False, True) if bfloat16 and PEERS[name].bfloat16 else (False,):
            argument = json.dumps({**work, "peer": name, "folder": str(folder), "bfloat16": half})
            command = [python, "-m", "benchmarks.performance", "performance.peer_scripts", argument]
            commands[f"{name}, bfloat16" if half else name] = command
    write_images(root / "images", splits)
    return commands


def in_turn(
    config: Mapping[str, Any],
    overrides: Sequence[str],
    ours: Mapping[str, Sequence[str]],
    peers: Mapping[str, Sequence[str]],
    root: Path,
) -> dict[str, dict[str, Any]]:
    """Run each process once, run.py with the arguments of each of ``ours``.

    Of each is returned: processor and wall seconds, peak memory in MiB, test error in percent, and versions.
    """
    results = {}
    for name, more in ours.items():
        with tempfile.TemporaryDirectory(dir=root) as folder:
            (Path(folder) / CACHE).symlink_to(root / CACHE)
            command = [sys.executable, str(RUN), *overrides, *more, "logger=none", f"output_root={folder}"]
            measured, _ = whole(command)
            [record] = (read_json(path) for path in Path(folder).glob(f"*/*/*/*/{RECORD}"))
            assert record is not None
            torch = record["environment"]["packages"]["torch"]
            results[name] = measured | {"error": record["metrics"]["test/top1_err"], "versions": f"torch {torch}"}
    start = [sys.executable, "-m", "benchmarks.performance", "performance.whole_scripts"]
    scripts = {name: [*start, json.dumps({"script": name, "config": config})] for name in SCRIPTS}
    for name, arguments in {**scripts, **peers}.items():
        measured, output = whole(arguments)
        results[name] = measured | json.loads(output.splitlines()[-1])
    return results


def whole(command: Sequence[str]) -> tuple[dict[str, float], str]:
    """Run a command to its end in one thread; return what it takes, see ``whole_process``, and what it printed.

    Raises ValueError: it fails, or this is not Linux.
    """
    answer = ask("performance.whole_process", list(command), 1, limit_s=DAY_S)
    return answer["measured"], answer["output"]


def summarise(results: Mapping[str, Sequence[Mapping[str, Any]]], config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return rows of the table: medians, and ratios of processor time to the bare loop of the same repeat."""
    rows = []
    for name, repeats in results.items():
        ratios = [
            one["processor_s"] / beside["processor_s"] for one, beside in zip(repeats, results[BESIDE], strict=True)
        ]
        versions = repeats[0].get("versions", "")
        medians = {key: statistics.median(one[key] for one in repeats) for key in repeats[0] if key != "versions"}
        place = {"network": config["name"], "data": config["data"]["name"], "epochs": config["recipe"]["epochs"]}
        row = {**place, "process": name, **medians, **with_interval("ratio", ratios)}
        rows.append(row | {"repeats": len(repeats), "versions": versions})
    return rows


def slower(rows: Sequence[Mapping[str, Any]], committed: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return where ours takes more processor time than allowed, a line each; the lower end of its interval is compared.

    Allowed is what the Lightning script takes, and no more than ``TOLERANCE`` above the greatest committed ratio.
    """
    ratios = {row["process"]: row["ratio"] for row in rows}
    lines = []
    for row in rows:
        if row["process"] not in OURS:
            continue
        known = [one["ratio"] for one in committed if TABLE.place(one) == TABLE.place(row)]
        allowed = min(ratios["lightning"], (1 + TOLERANCE) * max(known, default=math.inf))
        if row["ratio_low"] > allowed:
            lines.append(
                f"{row['network']}, {row['process']}: {row['ratio']:.2f} times the processor time of a bare loop "
                f"({row['ratio_low']:.2f} to {row['ratio_high']:.2f}), {allowed:.2f} is allowed"
            )
    return lines
