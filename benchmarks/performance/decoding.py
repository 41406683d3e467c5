"""Photographs from JPEG files: decoding, augmented batches, workers, and whether training waits for them.

``python -m benchmarks measure decoding`` generates a tree in ImageNet's layout, with files of its sizes, and reads it as
training does.
"""

import argparse
import importlib
import io
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmarks.config.compose import expand_all
from benchmarks.performance.document import MeasuredTable, add_write_option, in_one_thread, interval, named
from benchmarks.performance.interleaved import interleave, with_interval
from benchmarks.performance.jpeg_tree import CLASSES, QUALITIES, generate
from benchmarks.records.hardware import cores
from benchmarks.terminal import at_least, with_bar

BATCH = 256  # the papers'
ROUND_IMAGES = 64  # images that each way of decoding takes, before the next one's
WORKERS = (0, 1, 2)
PACE = 1.5  # a step's length, of the loader's period
STALL = 0.05  # a wait that counts, of a step
NETWORK = ("model=resnet", "model.depth=18", "model.block=basic", "model.stride_in=3x3", "+model.base_channels=8")
NETWORK_IMAGES = 16
PILLOW = "decoding, Pillow"
DECODING = MeasuredTable(
    "decoding",
    "Decoding photographs",
    {"what": ("what", "s"), **interval("images_per_s", "images/s", ",.0f"), "ratio": ("of Pillow's decoding", ".2f")},
    "",
)
WAITING = MeasuredTable(
    "decoding_trace",
    "Waiting for photographs",
    {
        **named(workers="d", batch="d"),
        "period_ms": ("a batch every, ms", ".0f"),
        "step_ms": ("step, ms", ".0f"),
        **named(steps="d", stalls="d"),
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
NOTE = (
    "A generated tree of {images:,} training and {tested:,} test images in ImageNet's layout: noise with photographs' "
    "spectrum, {width:.0f}x{height:.0f} pixels and {kilobytes:.0f} KB on average, JPEG of quality {qualities}, 4:2:0. All but "
    "the loader's lines: one thread, by its processor time, in rounds of {round_images} images, the same ones for each but "
    "the test batches; medians of rounds with their 95 % intervals, ratios within a round. Plain decoding has the files in "
    "memory; ours also reads them, and crops, scales to 224x224, augments and normalises. Images are scaled while they are "
    "decoded where at least twice the pixels along a side remain that are asked for, so not at these sizes. The loader's "
    "lines: a whole epoch by the clock after its first batch, workers beside the process that takes their batches, in "
    "batches of {batch}; their ratios are to a core's plain decoding."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``measure decoding``."""
    parser.description = "Decode, augment and load photographs from a generated tree of JPEG files of ImageNet's sizes."
    parser.add_argument(
        "--images", type=at_least(1), default=10_000, help="training images of the tree, default: %(default)s"
    )
    parser.add_argument("--tree", type=Path, help="its folder, generated once; default: outputs/cache/jpeg-<images>")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write waits and steps for chrome://tracing")
    add_write_option(parser)


def run(arguments: argparse.Namespace) -> None:
    """Generate the tree, measure, and print the tables.

    Raises:
        ValueError: too few images, or a folder that holds something else.
        OSError: the tree or the trace cannot be written.
    """
    if arguments.images < (fewest := 2 * BATCH + CLASSES):  # an epoch's first batch is left out
        raise ValueError(f"--images must be at least {fewest}, for two batches, got {arguments.images}")
    environment = in_one_thread("cpu")
    tree = arguments.tree or Path("outputs", "cache", f"jpeg-{arguments.images}")
    contents = generate(tree, arguments.images)
    packages, missing = decoders()
    for name in missing:
        print(f"{name} is not installed: left out", file=sys.stderr)
    rows = decode(tree, arguments.images, packages)
    plain = rows[0]["images_per_s"]
    rates, same = {}, {}
    for workers in WORKERS:
        print(f"loading an epoch with {workers} workers", file=sys.stderr)
        rates[workers], same[workers] = load(tree, BATCH, workers)
        row = {"what": f"loader, {workers} workers", "images_per_s": rates[workers], "ratio": rates[workers] / plain}
        rows.append(dict.fromkeys(DECODING.columns) | row)
    workers = max(1, min(max(WORKERS), cores() - 1))
    period = BATCH / rates[workers]
    print(f"training beside {workers} workers", file=sys.stderr)
    loader = data_module(tree, BATCH, workers).train_dataloader()
    steps = run_steps(loader, train_step(), PACE * period)
    trace: dict[str, Any] = {"workers": workers, "batch": BATCH, "period_ms": 1e3 * period, **waiting(steps)}
    trace["same_workers"] = "once" if same[workers] else "anew"
    if arguments.trace:
        arguments.trace.write_text(json.dumps(chrome_trace(steps)), encoding="utf-8")
    DECODING.report(arguments, rows, environment, note(contents, missing))
    WAITING.report(arguments, [trace], environment)


def note(contents: Mapping[str, Any], missing: Sequence[str]) -> str:
    """Return what a reader of the table must know of a tree with these contents."""
    text = NOTE.format(
        **contents,
        tested=contents["files"] - contents["images"],
        kilobytes=contents["mean_bytes"] / 1e3,
        qualities=" to ".join(map(str, QUALITIES)),
        round_images=ROUND_IMAGES,
        batch=BATCH,
    )
    return f"{text} Not installed, so left out: {', '.join(missing)}." if missing else text


def decoders() -> tuple[dict[str, Callable[[bytes], Any]], list[str]]:
    """Return decoders of whole images by the packages there are, Pillow's first, and the packages that are missing."""

    def pillow(data: bytes, half: bool = False) -> Image.Image:
        image = Image.open(io.BytesIO(data))
        if half:
            image.draft(None, (image.width // 2, image.height // 2))
        image.load()
        return image

    def opencv() -> Callable[[bytes], Any]:
        cv2 = importlib.import_module("cv2")
        cv2.setNumThreads(1)
        return lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)

    packages: dict[str, Callable[[bytes], Any]] = {
        "Pillow": pillow,
        "Pillow, into an array": lambda data: np.asarray(pillow(data)),
        "Pillow, at half the size": partial(pillow, half=True),
    }
    others: dict[str, Callable[[], Callable[[bytes], Any]]] = {
        "simplejpeg": lambda: partial(importlib.import_module("simplejpeg").decode_jpeg, colorspace="RGB"),
        "OpenCV": opencv,
        "PyTurboJPEG": lambda: importlib.import_module("turbojpeg").TurboJPEG().decode,
    }
    missing = []
    for name, make in others.items():
        try:
            packages[name] = make()
        except (ImportError, OSError, RuntimeError):
            missing.append(name)
    return packages, missing


def data_module(tree: Path, batch: int, workers: int = 0, overrides: Sequence[str] = ()) -> Any:
    """Return the data module of ResNeXt's recipe, as a run has it."""
    from hydra.utils import instantiate

    words = [
        *("model=resnext", "data=imagenet", f"data.root={tree}", f"data.num_classes={CLASSES}"),
        *("data.train_count=null", "data.test_count=null", "data.val_per_class=1", f"data.eval_batch_size={batch}"),
        *(f"recipe.batch_size={batch}", f"cluster.loader_workers={workers}", "logger=none", *overrides),
    ]
    [trial] = expand_all(words, multirun=False)
    return instantiate(trial.config["datamodule"])


def decode(tree: Path, images: int, packages: Mapping[str, Callable[[bytes], Any]]) -> list[dict[str, Any]]:
    """Measure images a second of one thread, by its processor time.

    Plain decoding, our batches for training and our batches for testing take rounds of ``ROUND_IMAGES`` images; all but
    the test batches are of the same images.
    """
    plain = ("recipe.augment.colour_jitter=0", "recipe.augment.lighting=0")
    full, short = (data_module(tree, ROUND_IMAGES, overrides=values).train_dataloader() for values in ((), plain))
    tests = data_module(tree, ROUND_IMAGES).test_dataloader()[0]
    split = full.dataset.split
    whole = [item for item in tests.sampler if item.stop - item.start == ROUND_IMAGES]
    evaluated = cycle(whole or list(tests.sampler))
    seconds: dict[str, list[float]] = {}
    items = list(full.sampler)[: max(1, images // ROUND_IMAGES)]
    for item in with_bar(items, "decoding"):
        files = [split.files.read(split.rows[number]) for number in item.rows.tolist()]
        test = next(evaluated)
        work: dict[str, Callable[[], Any]] = {
            **{f"decoding, {name}": partial(_all, decoder, files) for name, decoder in packages.items()},
            "training batch, the papers' augmentation": partial(full.dataset.__getitem__, item),
            "training batch, crop and flip": partial(short.dataset.__getitem__, item),
            "test batch": partial(tests.dataset.__getitem__, test),
        }
        counts = dict.fromkeys(work, ROUND_IMAGES) | {"test batch": test.stop - test.start}
        [times] = interleave([*work.values()], time.thread_time, warm_up=0, fewest=1, most=1)
        for name, spent in zip(work, times, strict=True):
            seconds.setdefault(name, []).append(spent / counts[name])
    return [summarise(name, times, seconds[PILLOW]) for name, times in seconds.items()]


def _all(decoder: Callable[[bytes], Any], files: Sequence[bytes]) -> None:
    for data in files:
        decoder(data)


def summarise(name: str, seconds: Sequence[float], plain: Sequence[float]) -> dict[str, Any]:
    """Return a row from the seconds of an image in each round, and the same of plain decoding."""
    ratio = statistics.median(b / a for a, b in zip(seconds, plain, strict=True))
    return {"what": name, **with_interval("images_per_s", [1 / one for one in seconds]), "ratio": ratio}


def load(tree: Path, batch: int, workers: int) -> tuple[float, bool]:
    """Return images a second over an epoch, and whether the same processes made a second epoch's first batch.

    By the clock, the start of the workers left out.
    """
    loader = data_module(tree, batch, workers).train_dataloader()
    before = set(multiprocessing.active_children())
    batches = iter(loader)
    next(batches)
    begun = time.perf_counter()
    count = sum(len(one.images) for one in batches)
    rate = count / (time.perf_counter() - begun)
    first = set(multiprocessing.active_children()) - before
    loader.sampler.set_epoch(1)
    next(iter(loader))
    return rate, len(first) == workers and set(multiprocessing.active_children()) - before == first


def train_step() -> Callable[[Any], None]:
    """Return a training step of a small ResNet on the first images of a batch."""
    import torch
    import torch.nn.functional as F
    from hydra.utils import instantiate

    [trial] = expand_all([*NETWORK, "data=imagenet", f"data.num_classes={CLASSES}", "logger=none"], multirun=False)
    net = instantiate(trial.config["model"]).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    def step(batch: Any) -> None:
        loss = F.cross_entropy(net(batch.images[:NETWORK_IMAGES]), batch.targets[:NETWORK_IMAGES])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


class Step(NamedTuple):
    """A training step, by the clock in seconds: when its batch was asked for, when it was there, when the step was done."""

    epoch: int
    requested: float
    received: float
    done: float


def run_steps(loader: Any, step: Callable[[Any], None], length: float) -> list[Step]:
    """Run two epochs of training steps of ``length`` seconds at least, one batch after another."""
    steps = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        requested = time.perf_counter()
        for batch in loader:
            received = time.perf_counter()
            step(batch)
            time.sleep(max(0.0, received + length - time.perf_counter()))
            steps.append(Step(epoch, requested, received, time.perf_counter()))
            requested = time.perf_counter()
    return steps


def waiting(steps: Sequence[Step]) -> dict[str, Any]:
    """Return numbers of steps and of stalls, the longest wait for all but an epoch's first batch, and those waits; ms."""
    length = statistics.median(step.done - step.received for step in steps)
    waits = ([step.received - step.requested for step in steps if step.epoch == epoch] for epoch in range(2))
    (first, *rest), (next_first, *next_rest) = waits
    return {
        "step_ms": 1e3 * length,
        "steps": len(steps),
        "stalls": sum(wait > STALL * length for wait in rest + next_rest),
        "longest_ms": 1e3 * max(rest + next_rest),
        "first_ms": 1e3 * first,
        "next_first_ms": 1e3 * next_first,
    }


def chrome_trace(steps: Sequence[Step]) -> dict[str, Any]:
    """Return events for chrome://tracing or Perfetto: waits and steps, in microseconds from the first."""
    start = steps[0].requested
    events = []
    for step in steps:
        spans = ("wait for the batch", step.requested, step.received), ("step", step.received, step.done)
        for name, begun, end in spans:
            place = {"ph": "X", "pid": 0, "tid": 0, "ts": 1e6 * (begun - start), "dur": 1e6 * (end - begun)}
            events.append({"name": name, **place})
    return {"traceEvents": events, "displayTimeUnit": "ms"}
