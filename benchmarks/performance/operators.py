"""The operators of detectors by themselves: ``python -m benchmarks measure operators``."""

import argparse
from dataclasses import replace
from typing import Any

from benchmarks.performance.document import MS, MeasuredTable, add_write_option, interval, this_machine
from benchmarks.performance.interleaved import with_interval
from benchmarks.performance.subprocesses import ask
from benchmarks.terminal import number

SECONDS = 20.0
TABLE = MeasuredTable(
    "operators",
    "Operators of detectors",
    {"operator": ("operator", "s"), **interval("seconds", "ms", MS)},
    "RoIAlign of 512 regions to 7x7 from 256 channels of 4 levels, an image of 800x1312 pixels; non-maximum suppression of "
    "2,000 random boxes at an overlap of 0.7. float32. On a CPU one thread, by its processor time; medians of interleaved "
    "rounds with their 95 % intervals. Plain PyTorch.",
)
ALONE = " torchvision's compiled operators need a torch of their own build, so they are not beside them here."
BESIDE = {"here": ("there, ms", MS), "torchvision": ("torchvision, ms", MS), **interval("ratio", "ratio", ".2f")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``measure operators``."""
    parser.description = (
        "Time RoIAlign, with and without its gradient, and non-maximum suppression; on a GPU where there is one."
    )
    seconds = number(0, "a number of seconds from 0")
    parser.add_argument("--seconds", type=seconds, default=SECONDS, help=f"of all rounds (default: {SECONDS:g})")
    parser.add_argument(
        "--torchvision", metavar="PYTHON",
        help="an interpreter that has torch and torchvision of one build: there ours and torchvision's are interleaved, too",
    )  # fmt: skip
    add_write_option(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print the table.

    Raises:
        ValueError: the interpreter of ``--torchvision`` has no torchvision that computes the same on the same device.
    """
    import torch

    torch.set_num_threads(1)
    environment = this_machine()
    table, more, there = TABLE, ALONE, {}
    if arguments.torchvision:
        answer = ask_torchvision(arguments.torchvision, arguments.seconds, environment["device"])
        there, versions = answer["rows"], answer["versions"]
        table = replace(TABLE, columns={**TABLE.columns, **BESIDE})
        more = (
            " On the right torchvision's compiled operators, level by level as in its MultiScaleRoIAlign, interleaved with "
            "ours in an environment of their own: ours there, torchvision's, and ours over torchvision's; "
            f"torch {versions['torch']}, torchvision {versions['torchvision']}. Both gave the same before they were timed."
        )
    rows = measure(environment["device"], arguments.seconds)
    table.report(arguments, [row | there.get(row["operator"], {}) for row in rows], environment, more)


def ask_torchvision(python: str, seconds: float, device: str) -> dict[str, Any]:
    """Return what ``beside_torchvision`` finds in another interpreter.

    Raises:
        ValueError: it fails there, or it ran on another device.
    """
    try:
        answer = ask("performance.beside_torchvision", {"seconds": seconds}, threads=1, python=python)
    except (ValueError, OSError) as error:
        raise ValueError(f"--torchvision {python}: {error}") from error
    if answer["device"] != device:
        raise ValueError(f"--torchvision {python} computes on {answer['device']}, and this interpreter on {device}")
    return answer


def measure(device: str, seconds: float, **sizes: int) -> list[dict[str, Any]]:
    """Return the time of each operator on ``device``, a row each. sizes: see ``Inputs``."""
    import torch

    from benchmarks.performance.beside_torchvision import Inputs, operators, times

    taken = times(operators(Inputs(torch.device(device), **sizes)), torch.device(device), seconds)
    return [{"operator": name, **with_interval("seconds", values)} for name, values in taken.items()]
