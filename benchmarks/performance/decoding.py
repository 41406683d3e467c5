"""Photographs from JPEG files: decoding, augmented batches, workers, and whether training waits for them.

``python -m benchmarks decoding`` generates a tree in ImageNet's layout, with files of its sizes, and reads it as training does.
"""

import argparse
import importlib
import io
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from PIL import Image
from rich.progress import track

from benchmarks import terminal
from benchmarks.config.compose import expand
from benchmarks.performance.document import add_write_option, table, write_record
from benchmarks.performance.interleaved import median_interval
from benchmarks.records.files import read_json, write_json
from benchmarks.records.hardware import cores
from benchmarks.training.environment import environment
from benchmarks.training.failures import describe
from benchmarks.training.rank import quiet

# ILSVRC 2012's training images are mostly 500x375, of 110 KB on average.
SHAPES = {(500, 375): 0.55, (500, 333): 0.15, (375, 500): 0.2, (333, 500): 0.05, (640, 480): 0.05}
QUALITIES = (90, 96)
CLASSES, TESTED = 10, 0.05  # test images, of the training images' number
SCENES, SCENE = 48, 1024  # pictures that the photographs are cut out of, and their side
SLOPES, CONTRAST, GRAINS, CHROMA = (1.0, 1.35), 50, (0, 8), 12  # grey levels but for the slopes
MARK = "generated.json"
BATCH = 256  # the papers'
TURN = 64  # images that each way of decoding takes, before the next one's turn
WORKERS = (0, 1, 2)
NETWORK = ("model=resnet", "model.depth=18", "model.block=basic", "model.stride_in=3x3", "+model.base_channels=8")
NETWORK_IMAGES = 16
PACE, STALL = 1.5, 0.05  # a step's length, of the loader's period; a wait that counts, of a step
COLUMNS = {
    "what": ("what", "s"),
    "images_per_s": ("images/s", ",.0f"),
    "low": ("from", ",.0f"),
    "high": ("to", ",.0f"),
    "ratio": ("of Pillow's decoding", ".2f"),
}
TRACE_COLUMNS = {
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
}
TITLE, TRACE_TITLE = "Decoding photographs", "Waiting for photographs"
TRACE_NOTE = (
    "Two epochs of training steps of a small ResNet on the same files, each step filled up by sleeping to 1.5 times the "
    "period in which the workers make a batch, as a GPU would keep its host waiting. A stall is a wait for a batch of more "
    "than 5 % of a step, after the first batch of an epoch; that one is made while nothing else is done, so that its wait is "
    "given by itself."
)


class Step(NamedTuple):
    """A training step, by the clock in seconds: when its batch was asked for, when it was there, when the step was done."""

    epoch: int
    asked: float
    got: float
    done: float


# The tree


def generate(root: Path, images: int) -> dict[str, Any]:
    """A tree of ``images`` training images and a few test images, unless it is there already.

    Returns:
        What was made: numbers, mean size of a file in bytes, mean width and height.

    Raises:
        ValueError: root holds something else.
    """
    wanted: dict[str, Any] = {"images": images, "version": 1}
    made = read_json(root / MARK)
    if made is not None and wanted.items() <= made.items():
        return made
    if made is not None or (root.is_dir() and set(os.listdir(root)) - {"train", "val"}):
        held = f"a tree of {made['images']} images" if made else "something else"
        raise ValueError(f"{root} holds {held}; name another folder by --tree")
    parts = ["train"] * images + ["val"] * max(CLASSES, round(TESTED * images))
    for part in ("train", "val"):
        for label in range(CLASSES):
            (root / part / wnid(label)).mkdir(parents=True, exist_ok=True)
    sizes, shapes = [], []
    numbers = [number for start in range(SCENES) for number in range(start, len(parts), SCENES)]
    shown = track(numbers, f"generating {len(parts)} JPEGs", console=terminal.console(), transient=True)
    for number in shown:
        if number < SCENES:
            random = np.random.default_rng(number)
            picture = scene(random)
        shape, data = photograph(picture, random)
        folder = wnid(number % CLASSES)
        (root / parts[number] / folder / f"{folder}_{number}.JPEG").write_bytes(data)
        sizes.append(len(data))
        shapes.append(shape)
    width, height = np.mean(shapes, axis=0).tolist()
    made = wanted | {"files": len(parts), "mean_bytes": float(np.mean(sizes)), "width": width, "height": height}
    write_json(root / MARK, made)
    return made


def wnid(label: int) -> str:
    """A class's folder."""
    return f"n{label + 1:08d}"


def scene(random: np.random.Generator) -> Image.Image:
    """A picture whose amplitudes fall with frequency as photographs' do (Field 1987), with grain."""
    frequency = np.hypot(np.fft.fftfreq(SCENE)[:, None], np.fft.rfftfreq(SCENE))
    frequency[0, 0] = np.inf
    slope = random.uniform(*SLOPES)

    def noise() -> np.ndarray:
        white = np.fft.rfft2(random.standard_normal((SCENE, SCENE)))
        found = np.fft.irfft2(white / frequency**slope, s=(SCENE, SCENE))
        return found / found.std()

    grain = random.uniform(*GRAINS) * random.standard_normal((SCENE, SCENE))
    planes = [128 + CONTRAST * noise() + grain, 128 + CHROMA * noise(), 128 + CHROMA * noise()]
    return Image.fromarray(np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8), "YCbCr").convert("RGB")


def photograph(picture: Image.Image, random: np.random.Generator) -> tuple[tuple[int, int], bytes]:
    """A part of a scene, mirrored or not: width and height, and the JPEG, 4:2:0."""
    width, height = list(SHAPES)[random.choice(len(SHAPES), p=list(SHAPES.values()))]
    left, top = int(random.integers(SCENE - width)), int(random.integers(SCENE - height))
    part = picture.crop((left, top, left + width, top + height))
    if random.random() < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    out = io.BytesIO()
    part.save(out, "JPEG", quality=int(random.integers(QUALITIES[0], QUALITIES[1] + 1)), subsampling="4:2:0")
    return (width, height), out.getvalue()


# Decoding


def decoders() -> tuple[dict[str, Callable[[bytes], Any]], list[str]]:
    """Whole images by the packages there are, Pillow's first, and the packages that are missing."""

    def pillow(data: bytes, size: tuple[int, int] | None = None) -> Image.Image:
        image = Image.open(io.BytesIO(data))
        if size:
            image.draft(None, (image.width // 2, image.height // 2))
        image.load()
        return image

    found: dict[str, Callable[[bytes], Any]] = {
        "Pillow": pillow,
        "Pillow, into an array": lambda data: np.asarray(pillow(data)),
        "Pillow, at half the size": lambda data: pillow(data, (2, 2)),
    }
    others = {"simplejpeg": _simplejpeg, "OpenCV": _opencv, "PyTurboJPEG": _turbojpeg}
    missing = []
    for name, make in others.items():
        try:
            found[name] = make()
        except (ImportError, OSError, RuntimeError):
            missing.append(name)
    return found, missing


def _simplejpeg() -> Callable[[bytes], Any]:
    decode = importlib.import_module("simplejpeg").decode_jpeg
    return lambda data: decode(data, "RGB")


def _opencv() -> Callable[[bytes], Any]:
    cv2 = importlib.import_module("cv2")
    cv2.setNumThreads(1)
    return lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def _turbojpeg() -> Callable[[bytes], Any]:
    return importlib.import_module("turbojpeg").TurboJPEG().decode


def data_module(tree: Path, batch: int, workers: int = 0, overrides: Sequence[str] = ()) -> Any:
    """Of ResNeXt's recipe, as a run has it."""
    trial: Any = expand(
        [
            *("model=resnext", "data=imagenet", f"data.root={tree}", f"data.num_classes={CLASSES}"),
            *("data.train_count=null", "data.test_count=null", "data.val_per_class=1", f"data.eval_batch_size={batch}"),
            *(f"recipe.batch_size={batch}", f"cluster.loader_workers={workers}", "logger=none", *overrides),
        ],
        False,
    )[0]
    return instantiate(trial.config["datamodule"])


def decoding(tree: Path, images: int, turn: int, ways: Mapping[str, Callable[[bytes], Any]]) -> list[dict[str, Any]]:
    """Images a second of one thread, by its processor time: of plain decoding, of our batches for training and for testing.

    They take turns of ``turn`` images; all but the test batches are of the same images.
    """
    plain = ("recipe.augment.colour_jitter=0", "recipe.augment.lighting=0")
    full, short = (data_module(tree, turn, overrides=values).train_dataloader() for values in ((), plain))
    tests = data_module(tree, turn).test_dataloader()[0]
    split = full.dataset.split
    rows = [item for item in tests.sampler if item.stop - item.start == turn] or list(tests.sampler)
    evaluated = cycle(rows)
    times: dict[str, list[float]] = {}

    def clock(name: str, count: int, work: Callable[[Any], Any], given: Any) -> None:
        begun = time.thread_time()
        work(given)
        times.setdefault(name, []).append((time.thread_time() - begun) / count)

    def decode_all(given: tuple[Callable[[bytes], Any], Sequence[bytes]]) -> None:
        for data in given[1]:
            given[0](data)

    items = list(full.sampler)[: max(1, images // turn)]
    for item in track(items, "decoding", console=terminal.console(), transient=True):
        files = [split.files.read(split.rows[number]) for number in item.rows.tolist()]
        for name, decode in ways.items():
            clock(f"decoding, {name}", turn, decode_all, (decode, files))
        clock("training batch, the papers' augmentation", turn, full.dataset.__getitem__, item)
        clock("training batch, crop and flip", turn, short.dataset.__getitem__, item)
        test = next(evaluated)
        clock("test batch", test.stop - test.start, tests.dataset.__getitem__, test)
    first = times["decoding, Pillow"]
    return [summarise(name, spent, first) for name, spent in times.items()]


def summarise(name: str, spent: Sequence[float], plain: Sequence[float]) -> dict[str, Any]:
    """A row: seconds an image, by turns, and the same of plain decoding."""
    low, middle, high = median_interval(spent)
    ratio = statistics.median(b / a for a, b in zip(spent, plain, strict=True))
    return {"what": name, "images_per_s": 1 / middle, "low": 1 / high, "high": 1 / low, "ratio": ratio}


# Loading


def processes() -> set[int]:
    """Of this process's children, the workers."""
    return {child.pid for child in multiprocessing.active_children() if child.pid is not None}


def loading(tree: Path, batch: int, workers: int) -> tuple[float, bool]:
    """Images a second over an epoch by the clock, the start of the workers left out; and whether the same processes made a
    second epoch's first batch."""
    loader = data_module(tree, batch, workers).train_dataloader()
    before = processes()
    batches = iter(loader)
    next(batches)
    begun, count = time.perf_counter(), 0
    for found in batches:
        count += len(found.images)
    rate = count / (time.perf_counter() - begun)
    first = processes() - before
    loader.sampler.set_epoch(1)
    next(iter(loader))
    return rate, len(first) == workers and processes() - before == first


def train_step(batch: int) -> Callable[[Any], None]:
    """A training step of a small ResNet on the first images of a batch."""
    trial: Any = expand([*NETWORK, "data=imagenet", f"data.num_classes={CLASSES}", "logger=none"], False)[0]
    net = instantiate(trial.config["model"]).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    count = min(batch, NETWORK_IMAGES)

    def step(found: Any) -> None:
        loss = F.cross_entropy(net(found.images[:count]), found.targets[:count])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def run_steps(loader: Any, step: Callable[[Any], None], length: float, epochs: int = 2) -> list[Step]:
    """Training steps of ``length`` seconds at least, one batch after another."""
    return [found for epoch in range(epochs) for found in _epoch(loader, step, length, epoch)]


def _epoch(loader: Any, step: Callable[[Any], None], length: float, epoch: int) -> Iterator[Step]:
    loader.sampler.set_epoch(epoch)
    batches, end = iter(loader), object()
    while True:
        asked = time.perf_counter()
        batch = next(batches, end)
        if batch is end:
            return
        got = time.perf_counter()
        step(batch)
        time.sleep(max(0.0, got + length - time.perf_counter()))
        yield Step(epoch, asked, got, time.perf_counter())


def waiting(steps: Sequence[Step]) -> dict[str, Any]:
    """Numbers of steps and of stalls, and the longest wait, of all but each epoch's first batch; the waits for these; ms."""
    starts = [place for place, step in enumerate(steps) if not place or step.epoch != steps[place - 1].epoch]
    length = statistics.median(step.done - step.got for step in steps)
    waits = [step.got - step.asked for step in steps]
    rest = [wait for place, wait in enumerate(waits) if place not in starts]
    return {
        "step_ms": 1e3 * length,
        "steps": len(steps),
        "stalls": sum(wait > STALL * length for wait in rest),
        "longest_ms": 1e3 * max(rest),
        "first_ms": 1e3 * waits[starts[0]],
        "next_first_ms": 1e3 * waits[starts[1]],
    }


def chrome_trace(steps: Sequence[Step]) -> dict[str, Any]:
    """For chrome://tracing or Perfetto: waits and steps, in microseconds from the first."""
    events = [
        {"name": name, "ph": "X", "pid": 0, "tid": 0, "ts": 1e6 * (begun - steps[0].asked), "dur": 1e6 * (end - begun)}
        for step in steps
        for name, begun, end in (("wait for the batch", step.asked, step.got), ("step", step.got, step.done))
    ]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def note(made: Mapping[str, Any], missing: Sequence[str]) -> str:
    """What a reader of the table must know."""
    absent = f" Not installed, so left out: {', '.join(missing)}." if missing else ""
    return (
        f"A generated tree of {made['images']:,} training and {made['files'] - made['images']:,} test images in ImageNet's "
        f"layout: noise with photographs' spectrum, {made['width']:.0f}x{made['height']:.0f} pixels and "
        f"{made['mean_bytes'] / 1e3:.0f} KB on average, JPEG of quality {QUALITIES[0]} to {QUALITIES[1]}, 4:2:0. All but the "
        f"loader's lines: one thread, by its processor time, in turns of {TURN} images, the same ones for each but the test "
        "batches; medians of turns with their 95 % intervals, ratios within a turn. Plain decoding has the files in memory; "
        "ours also reads them, and crops, scales to 224x224, augments and normalises. Images are scaled while they are decoded "
        "where at least twice the pixels along a side remain that are asked for, so not at these sizes. The loader's lines: a "
        "whole epoch by the clock after its first batch, workers beside the process that takes their batches, in batches of "
        f"{BATCH}; their ratios are to a core's plain decoding.{absent}"
    )


def main(argv: Sequence[str]) -> int:
    """The command; returns 0, or 2 where it is refused."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks decoding",
        description="Decode, augment and load photographs from a generated tree of JPEG files of ImageNet's sizes.",
    )
    parser.add_argument("--images", type=int, default=10_000, help="training images of the tree, default: %(default)s")
    parser.add_argument("--tree", type=Path, help="its folder, generated once; default: outputs/cache/jpeg-<images>")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write waits and steps for chrome://tracing")
    add_write_option(parser)
    arguments = parser.parse_args(argv)
    if arguments.images < BATCH + CLASSES:
        parser.error(f"--images must be at least {BATCH + CLASSES}, for a batch, got {arguments.images}")
    quiet()
    torch.set_num_threads(1)
    tree = arguments.tree or Path("outputs", "cache", f"jpeg-{arguments.images}")
    try:
        made = generate(tree, arguments.images)
    except (ValueError, OSError) as error:
        print(f"python -m benchmarks decoding: {describe(error)}", file=sys.stderr)
        return 2
    ways, missing = decoders()
    for name in missing:
        print(f"{name} is not installed: left out", file=sys.stderr)
    rows = decoding(tree, arguments.images, TURN, ways)
    plain = rows[0]["images_per_s"]
    rates, same = {}, {}
    for workers in WORKERS:
        print(f"loading an epoch with {workers} workers", file=sys.stderr)
        rates[workers], same[workers] = loading(tree, BATCH, workers)
        rows.append(
            {
                "what": f"loader, {workers} workers",
                "images_per_s": rates[workers],
                "low": None,
                "high": None,
                "ratio": rates[workers] / plain,
            }
        )
    workers = max(1, min(max(WORKERS), cores() - 1))
    period = BATCH / rates[workers]
    print(f"training beside {workers} workers", file=sys.stderr)
    loader = data_module(tree, BATCH, workers).train_dataloader()
    steps = run_steps(loader, train_step(BATCH), PACE * period)
    started = "once" if same[workers] else "anew"
    traced = {"workers": workers, "batch": BATCH, "period_ms": 1e3 * period, **waiting(steps), "same_workers": started}
    if arguments.trace:
        arguments.trace.write_text(json.dumps(chrome_trace(steps)), encoding="utf-8")
    terminal.console().print(table(COLUMNS, rows))
    terminal.console().print(table(TRACE_COLUMNS, [traced]))
    if arguments.write:
        where = environment(torch.device("cpu"))
        command = " ".join(["python -m benchmarks decoding", *argv])
        write_record("decoding", where, command, TITLE, COLUMNS, rows, note(made, missing))
        write_record("decoding_trace", where, command, TRACE_TITLE, TRACE_COLUMNS, [traced], TRACE_NOTE)
    return 0
