"""Our training step beside other projects' training loops on the same work: ``python -m benchmarks measure peers``.

Each trains the same network from the same weights on the same batches with the same optimiser and schedule, interleaved with
the hand-written loop of ``hand_written_loop`` in the same process; on a CPU all end with the same weights, to the bit.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.performance import cases
from benchmarks.performance.cases import INPUT, INPUT_STEPS, Case, chosen
from benchmarks.performance.document import MeasuredTable, add_write_option, in_one_thread, interval, named
from benchmarks.performance.interleaved import interleave, with_interval
from benchmarks.terminal import at_least

if TYPE_CHECKING:
    from benchmarks.performance.other_loops import Peer

WHOLE = "resnet20_cifar"  # whose batches are also made by each loop's own input path
CASES = {name: cases.CASES[name] for name in ("resnext29_8x64d", "densenet_bc100_k12", "resnet20_digits")} | {
    WHOLE: Case(("model=resnet", "data=cifar10", "model.depth=20"), 128, 80, None)
}
STEPS = MeasuredTable(
    "peers",
    "Public training loops beside a hand-written loop",
    {
        **named(network="s", batch="d", loop="s", version="s"),
        "images_per_s": ("images/s", ".1f"),
        **interval("ratio", "ratio to bare", ".3f"),
        "added_us": ("added, µs", ".0f"),
        "rounds": ("rounds", "d"),
    },
    "Each loop is interleaved with the same bare loop in one process, as in the table of our training step: the same "
    "initial weights, batches (made by our loader), optimiser and schedule, float32. `torchvision` and `timm` are "
    "train_one_epoch of their training scripts (with the start of its text's SHA-256) and the scripts' defaults, but "
    "without label smoothing (torchvision has no wheel for torch's CPU build: there its compiled operators were "
    "declared and not loaded, and none of these loops uses one); `lightning` is a LightningModule and a pl.Trainer as"
    " Lightning's documentation writes them, with loss and torchmetrics accuracy logged in each step, CSVLogger and "
    "ModelCheckpoint; `ignite` is create_supervised_trainer with its loss printed every 100 steps. What they print is"
    " discarded. A test shows on a small network that loops end with the same weights as the bare loop, to the bit. "
    "Ratio and what is added are medians over rounds, on a CPU of processor time in one thread, with the ratio's 95 % "
    "interval; images/s are those of the bare loop, over all its rounds, divided by the ratio.",
    same=("network",),
)
BATCHES = MeasuredTable(
    "peers_input",
    "Making batches of small images, and whole steps with them",
    {
        "loop": ("pipeline", "s"),
        **named(version="s", batch="d"),
        **interval("images_per_s", "images/s on one core", ",.0f"),
        "times": ("time of ours", ".1f"),
        "whole_images_per_s": ("ResNet-20 with it, images/s", ".1f"),
        **interval("whole_ratio", "ratio to bare", ".3f"),
    },
    "Random images of 3x32x32 in memory, padded by 4, cropped, flipped and normalised. `torchvision`: "
    "Image.fromarray, as its CIFAR10 has it, RandomCrop, RandomHorizontalFlip, ToTensor and Normalize through a "
    "DataLoader without workers (PILToTensor and ConvertImageDtype, which the script's presets have, take longer). "
    "`timm`: its create_loader, which collates bytes and normalises whole batches, with the same crop and flip in "
    "place of its resized crop. A batch of each in turn, processor time of one thread, medians with 95 % intervals. "
    "On the right each loop trains ResNet-20 on batches from its own pipeline, interleaved with the bare loop, which has "
    "ours.",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``measure peers``."""
    parser.description = (
        "Time training steps of the suite and of public training loops on the same work, each interleaved with a hand-written "
        "loop in one process, and their input paths. Loops that are not installed are left out."
    )
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}, {INPUT} (input paths), default: all"
    )
    parser.add_argument("--torchvision", type=Path, metavar="FOLDER", help="references/classification of its sources")
    parser.add_argument("--timm", type=Path, metavar="FILE", help="train.py of its sources")
    parser.add_argument("--steps", type=at_least(1), help="default: by case")
    add_write_option(parser)


def run(arguments: argparse.Namespace) -> None:
    """Measure and print the tables, and name the loops that are left out; raise ValueError where there is no such case."""
    names = chosen(arguments.cases, [*CASES, INPUT], "case")
    environment = in_one_thread()

    from benchmarks.performance.other_loops import find_peers

    peers, left_out = find_peers(arguments.torchvision, arguments.timm)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    missing = "".join(f" Left out: {line}." for line in left_out)
    for name in names:  # each is written at once: a later one may be interrupted
        if name == INPUT:
            rows = input_rows(peers, INPUT_STEPS, arguments.steps or CASES[WHOLE].steps)
            BATCHES.report(arguments, rows, environment, missing)
        else:
            rows = step_rows(name, peers, arguments.steps or CASES[name].steps)
            STEPS.report(arguments, rows, environment, missing)


def step_rows(name: str, peers: Sequence["Peer"], steps: int, own_batches: bool = False) -> list[dict[str, Any]]:
    """Return the hand-written loop's row of the table and one for each peer.

    Images a second are of the hand-written loop, all its rounds together, divided by the ratios: these do not depend on what
    the machine had to do while a loop was measured.
    """
    from benchmarks.performance.hand_written_loop import WARM_UP, summarise
    from benchmarks.performance.other_loops import train_interleaved

    measured = []
    for peer in peers:
        print(f"measuring {name}, {peer.name}", file=sys.stderr)
        measured.append(train_interleaved(CASES[name], steps, peer, own_batches))
    bare = measured[0].bare
    batch, processor = bare.loader.sampler.batch_size, bare.device.type == "cpu"
    rounds = [timing for beside in measured for timing in beside.rounds[WARM_UP:]]
    speed = batch / statistics.median(timing.bare_processor if processor else timing.bare for timing in rounds)
    rows = [dict.fromkeys(STEPS.columns) | {"network": name, "batch": batch, "loop": "bare", "images_per_s": speed}]
    for peer, beside in zip(peers, measured, strict=True):
        row = summarise(beside.rounds, processor)
        row |= {"loop": peer.name, "version": peer.version, "images_per_s": speed / row["ratio"]}
        rows.append({"network": name, "batch": batch, **row})
    return rows


def input_rows(peers: Sequence["Peer"], batches: int, steps: int) -> list[dict[str, Any]]:
    """Measure making batches by each input path in turn, and whole steps with them."""
    import torch

    from benchmarks.performance.hand_written_loop import WARM_UP, prepare
    from benchmarks.performance.other_loops import Pictures

    case = CASES[WHOLE]
    assert case.batch is not None
    with tempfile.TemporaryDirectory() as root:
        _, datamodule = prepare(case, batches, Path(root))
    paths = [peer for peer in peers if peer.train is None or peer.batches is not None]
    loaders = [
        iter(
            datamodule.train_dataloader()
            if peer.batches is None
            else peer.batches(Pictures(datamodule), case.batch, torch.device("cpu"))
        )
        for peer in paths
    ]
    count = batches - WARM_UP
    making = [partial(next, loader) for loader in loaders]
    rounds = interleave(making, time.thread_time, warm_up=WARM_UP, fewest=count, most=count)
    _, *wholes = step_rows(WHOLE, paths, steps, own_batches=True)
    rows = []
    for peer, times, whole in zip(paths, zip(*rounds, strict=True), wholes, strict=True):
        row = {"loop": peer.name, "version": peer.version, "batch": case.batch}
        row |= with_interval("images_per_s", [case.batch / seconds for seconds in times])
        row["times"] = statistics.median(other / first for other, (first, *_) in zip(times, rounds, strict=True))
        rows.append(row | {f"whole_{key}": whole[key] for key in ("images_per_s", "ratio", "ratio_low", "ratio_high")})
    return rows
