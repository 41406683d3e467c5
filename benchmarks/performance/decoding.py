"""Photographs from JPEG files: decoding, augmented batches, workers, and whether training waits for them.

``python -m benchmarks measure decoding`` generates a tree in ImageNet's layout, with files of its sizes, and reads it as
training does.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.performance.document import MeasuredTable, add_write_option
from benchmarks.performance.jpeg_tree import CLASSES, QUALITIES, generate
from benchmarks.records.hardware import cores

BATCH = 256  # the papers'
ROUND_IMAGES = 64  # images that each way of decoding takes, before the next one's
WORKERS = (0, 1, 2)
PACE = 1.5  # a step's length, of the loader's period
DECODING = MeasuredTable(
    "decoding",
    "Decoding photographs",
    {
        "what": ("what", "s"),
        "images_per_s": ("images/s", ",.0f"),
        "low": ("from", ",.0f"),
        "high": ("to", ",.0f"),
        "ratio": ("of Pillow's decoding", ".2f"),
    },
    "",
)
WAITING = MeasuredTable(
    "decoding_trace",
    "Waiting for photographs",
    {
        "workers": ("workers", "d"),
        "batch": ("batch", "d"),
        "period_ms": ("a batch every, ms", ".0f"),
        "step_ms": ("step, ms", ".0f"),
        "steps": ("steps", "d"),
        "stalls": ("stalls", "d"),
        "longest_ms": ("longest wait, ms", ".1f"),
        "first_ms": ("first batch, ms", ".0f"),
        "next_first_ms": ("first batch of the second epoch, ms", ".0f"),
        "same_workers": ("workers started", "s"),
    },
    "Two epochs of training steps of a small ResNet on the same files, each step filled up by sleeping to 1.5 times the "
    "period in which the workers make a batch, as a GPU would keep its host waiting. A stall is a wait for a batch of more "
    "than 5 % of a step, after the first batch of an epoch; that one is made while nothing else is done, so that its wait is "
    "given by itself.",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``measure decoding``."""
    parser.description = "Decode, augment and load photographs from a generated tree of JPEG files of ImageNet's sizes."
    parser.add_argument("--images", type=int, default=10_000, help="training images of the tree, default: %(default)s")
    parser.add_argument("--tree", type=Path, help="its folder, generated once; default: outputs/cache/jpeg-<images>")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write waits and steps for chrome://tracing")
    add_write_option(parser)


def run(arguments: argparse.Namespace) -> None:
    """Generate the tree, measure, and print the tables.

    Raises:
        ValueError: too few images, or a folder that holds something else.
        OSError: the tree or the trace cannot be written.
    """
    if arguments.images < BATCH + CLASSES:
        raise ValueError(f"--images must be at least {BATCH + CLASSES}, for a batch, got {arguments.images}")

    import torch

    from benchmarks.performance import photographs
    from benchmarks.training.environment import environment
    from benchmarks.training.rank import quiet

    quiet()
    torch.set_num_threads(1)
    tree = arguments.tree or Path("outputs", "cache", f"jpeg-{arguments.images}")
    made = generate(tree, arguments.images)
    ways, missing = photographs.decoders()
    for name in missing:
        print(f"{name} is not installed: left out", file=sys.stderr)
    rows = photographs.decode(tree, arguments.images, ROUND_IMAGES, ways)
    plain = rows[0]["images_per_s"]
    rates, same = {}, {}
    for workers in WORKERS:
        print(f"loading an epoch with {workers} workers", file=sys.stderr)
        rates[workers], same[workers] = photographs.load(tree, BATCH, workers)
        row = {"what": f"loader, {workers} workers", "images_per_s": rates[workers], "low": None, "high": None}
        rows.append(row | {"ratio": rates[workers] / plain})
    workers = max(1, min(max(WORKERS), cores() - 1))
    period = BATCH / rates[workers]
    print(f"training beside {workers} workers", file=sys.stderr)
    loader = photographs.data_module(tree, BATCH, workers).train_dataloader()
    steps = photographs.run_steps(loader, photographs.train_step(BATCH), PACE * period)
    started = "once" if same[workers] else "anew"
    traced: dict[str, Any] = {"workers": workers, "batch": BATCH, "period_ms": 1e3 * period}
    traced |= {**photographs.waiting(steps), "same_workers": started}
    if arguments.trace:
        arguments.trace.write_text(json.dumps(photographs.chrome_trace(steps)), encoding="utf-8")
    DECODING.print(rows)
    WAITING.print([traced])
    if arguments.write:
        where, command = environment(torch.device("cpu")), arguments.command_line
        DECODING.write(where, command, rows, note(made, missing))
        WAITING.write(where, command, [traced])


def note(made: Mapping[str, Any], missing: Sequence[str]) -> str:
    """Return what a reader of the table must know."""
    absent = f" Not installed, so left out: {', '.join(missing)}." if missing else ""
    return (
        f"A generated tree of {made['images']:,} training and {made['files'] - made['images']:,} test images in ImageNet's "
        f"layout: noise with photographs' spectrum, {made['width']:.0f}x{made['height']:.0f} pixels and "
        f"{made['mean_bytes'] / 1e3:.0f} KB on average, JPEG of quality {QUALITIES[0]} to {QUALITIES[1]}, 4:2:0. All but the "
        f"loader's lines: one thread, by its processor time, in rounds of {ROUND_IMAGES} images, the same ones for each but "
        "the test batches; medians of rounds with their 95 % intervals, ratios within a round. Plain decoding has the files in "
        "memory; ours also reads them, and crops, scales to 224x224, augments and normalises. Images are scaled while they are "
        "decoded where at least twice the pixels along a side remain that are asked for, so not at these sizes. The loader's "
        "lines: a whole epoch by the clock after its first batch, workers beside the process that takes their batches, in "
        "batches of "
        f"{BATCH}; their ratios are to a core's plain decoding.{absent}"
    )
