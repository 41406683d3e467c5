"""Which layout is the default of a family of networks: ``python -m benchmarks measure layouts``.

Steps in channels_last and in NCHW are interleaved in a process for each network and precision. With ``--write`` the decisions
become the table from which ``trainer.channels_last=null`` is resolved.
"""

import argparse
import csv
import itertools
import statistics
import sys
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from benchmarks.config.compose import expand_all
from benchmarks.performance import subprocesses
from benchmarks.performance.cases import chosen
from benchmarks.performance.document import MeasuredTable, add_write_option, interval, named, this_machine
from benchmarks.performance.interleaved import with_interval
from benchmarks.performance.kept_memory import ONE_THREAD
from benchmarks.records.files import write_atomic
from benchmarks.terminal import number, with_bar
from benchmarks.training.default_settings import LAYOUTS
from benchmarks.training.tuned_settings import WORTH, specification
from benchmarks.units import csv_text, grouped

CIFAR, DIGITS, IMAGENET = "data=cifar10", "data=digits", "data=imagenet"
NUCLEI, SCENES = "data=nuclei_instances", "data=digit_scenes"
CROPS = (NUCLEI, "recipe.augment.crop_size=160")
# name -> overrides, images of a step on a CPU, on a GPU; none: not there. Batches are the recipes', fewer where a step would
# take long: with a few images the other layout can be the faster one.
NETWORKS = {
    "resnet20": (("model=resnet", CIFAR, "model.depth=20"), 64, 128),
    "resnet20_digits": (("model=resnet", DIGITS), 64, None),
    "resnext20_8x4d": (("model=resnext", CIFAR, "model.depth=20", "model.base_width=4"), 64, None),
    "resnext20_digits": (("model=resnext", DIGITS), 64, None),
    "resnext29_8x16d": (("model=resnext", CIFAR, "model.base_width=16"), 16, None),
    "resnext29_8x64d": (("model=resnext", CIFAR), 16, 128),
    "densenet_bc40_k12": (("model=densenet", CIFAR, "model.depth=40"), 64, None),
    "densenet_bc40_digits": (("model=densenet", DIGITS), 64, None),
    "densenet_bc100_k12": (("model=densenet", CIFAR), 16, 64),
    "unet8_padded": (("model=unet", "data=nuclei"), 4, None),
    "unet32_padded": (("model=unet", "data=touching_cells", "model.base_channels=32"), 4, 16),
    "mask_rcnn_nuclei": (("model=mask_rcnn", NUCLEI), 4, None),
    "mask_rcnn_digit_scenes": (("model=mask_rcnn", SCENES), 4, None),
    "faster_rcnn_nuclei": (("model=faster_rcnn", NUCLEI), 4, None),
    "faster_rcnn_digit_scenes": (("model=faster_rcnn", SCENES), 4, None),
    "mask_rcnn_resnet50_fpn256": (("model=mask_rcnn", "model/variant@model=mask_rcnn_coco", *CROPS), 1, None),
    "faster_rcnn_resnet50_fpn256": (("model=faster_rcnn", "model/variant@model=faster_rcnn_coco", *CROPS), 1, None),
    "resnet50": (("model=resnet", IMAGENET, "model.depth=50"), None, 64),
    "resnext50_32x4d": (("model=resnext", IMAGENET, "model.depth=50"), None, 64),
    "densenet_bc121_k32": (("model=densenet", IMAGENET, "model.depth=121"), None, 64),
}
PRECISIONS = ("32-true", "bf16-mixed")
SECONDS = 15.0
FIELDS = ("device", "family", "precision", "channels_last", "time_ratio", "networks")
TABLE = MeasuredTable(
    "layouts",
    "Layouts of images and weights",
    {
        **named(network="s", batch="d", precision="s"),
        **interval("time_ratio", "time of a training step, channels_last to NCHW", ".3f"),
        **interval("forward_ratio", "forward", ".3f"),
        "rounds": ("rounds", "d"),
    },
    "Training steps and forward passes of evaluation on random images, of a detector on images and objects of its data set, in "
    "channels_last and in NCHW, interleaved in one process: the ratio's median with its 95 % interval, on a CPU of processor "
    "time in one thread. channels_last is the default of a family in a precision on CPUs or GPUs, where the geometric mean of "
    "its networks' ratios in training, on all machines measured, is below 1 / 1.03 and none of them takes more than 1.03 times "
    "as long. In 32-true a GPU's convolutions "
    "are in TF32.",
    same=("network", "batch", "precision"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``measure layouts``."""
    parser.description = (
        "Time a training step and a forward pass in channels_last and in NCHW, interleaved, for each network and precision. "
        f"With --write the decisions become {LAYOUTS.name}, from which trainer.channels_last=null is resolved."
    )
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}; default: all")
    parser.add_argument(
        "--seconds",
        type=number(1, "a number of seconds from 1"),
        default=SECONDS,
        help=f"of a comparison; default: {SECONDS:.0f}",
    )
    add_write_option(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print the table; with ``--write`` keep it and what it decides.

    Raises:
        ValueError: no such network, or a file that cannot be written.
    """
    asked = chosen(arguments.networks, NETWORKS, "network")
    environment = this_machine() | {"threads": 1}
    gpu = environment["device"] == "cuda"
    names = [name for name in asked if NETWORKS[name][1 + gpu] is not None]
    pairs = list(itertools.product(names, PRECISIONS))
    rows: list[dict[str, Any]] = []
    try:
        for name, precision in with_bar(pairs, "layouts"):
            try:
                rows.append(compare(name, precision, gpu, arguments.seconds))
            except ValueError as error:
                print(f"left out   {name}, {precision}: {error}", file=sys.stderr)
    finally:  # what is interrupted keeps what it has measured
        TABLE.report(arguments, rows, environment)
        if arguments.write and rows:
            write_decisions(decided := decisions(TABLE.committed(environment["device"]), environment["device"]))
            for row in decided:
                print(f"default    {', '.join(row[name] for name in FIELDS[:-1])}")


def compare(name: str, precision: str, gpu: bool, seconds: float) -> dict[str, Any]:
    """Return a row of the table; raise ValueError where the network cannot be trained here in this precision."""
    overrides, *batches = NETWORKS[name]
    [trial] = expand_all(
        [*overrides, *ONE_THREAD, f"recipe.batch_size={batches[gpu]}", f"trainer.precision={precision}"], multirun=False
    )
    base = specification(trial.config)
    timing = {"fewest": 7, "most": 400, "seconds": seconds, "clock": "perf_counter" if gpu else "thread_time"}
    detects = trial.config["data"]["task"] == "detection"
    ratios = _of_detector(trial.config, base, timing) if detects else _on_random_images(base, timing)
    return {
        "network": name,
        "family": trial.config["family"],
        "batch": base["batch"],
        "precision": precision,
        **with_interval("time_ratio", ratios["training"]),
        **with_interval("forward_ratio", ratios["forward"]),
        "rounds": len(ratios["training"]),
    }


def _on_random_images(base: Mapping[str, Any], timing: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return the ratios of training steps and of forward passes."""
    nhwc, nchw = ({"options": base["options"] | {"channels_last": layout}} for layout in (True, False))
    both = {**base, **nhwc, "beside": nchw, "interleaved": timing, "measured_s": 0.0}
    passes = ("forward", "training")
    results = subprocesses.steps(both, [{"forward": name == "forward"} for name in passes])
    for result in results:
        if error := result.get("error"):
            raise ValueError(error)
        if "ratios" not in result:
            raise ValueError("out of memory with both layouts")
    return {name: result["ratios"] for name, result in zip(passes, results, strict=True)}


def _of_detector(
    config: Mapping[str, Any], base: Mapping[str, Any], timing: Mapping[str, Any]
) -> dict[str, list[float]]:
    """Return the same on images and objects of the data set."""
    nodes = {key: config[key] for key in ("model", "recipe", "datamodule", "seed")}
    others = {key: base[key] for key in ("precision", "gpu", "threads")}
    argument = {**nodes, **others, "epochs": config["recipe"]["epochs"], "interleaved": timing}
    return subprocesses.ask("performance.detector_steps", argument, base["threads"])


def decisions(rows: Sequence[Mapping[str, Any]], device: str) -> list[dict[str, str]]:
    """Return the layout of each family in each precision on ``device``, as rows of the table of defaults."""
    table = []
    for (family, precision), members in sorted(grouped(rows, itemgetter("family", "precision")).items()):
        ratios = [row["time_ratio"] for row in members]
        mean = statistics.geometric_mean(ratios)
        faster = mean < 1 / WORTH and max(ratios) < WORTH
        names = " ".join(sorted({row["network"] for row in members}))
        values = (device, family, precision, str(faster).lower(), f"{mean:.3f}", names)
        table.append(dict(zip(FIELDS, values, strict=True)))
    return table


def write_decisions(decided: Sequence[Mapping[str, str]]) -> None:
    """Write the table of defaults: these rows in place of those of the same device, family and precision."""
    with LAYOUTS.open(newline="", encoding="utf-8") as file:
        table = {tuple(row[name] for name in FIELDS[:3]): row for row in csv.DictReader(file)}
    table |= {tuple(row[name] for name in FIELDS[:3]): dict(row) for row in decided}
    write_atomic(LAYOUTS, csv_text([FIELDS, *([table[key][name] for name in FIELDS] for key in sorted(table))]))
