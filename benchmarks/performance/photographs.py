"""Photographs from JPEG files: decoding, augmented batches, loader workers, and whether training waits for them."""

import importlib
import io
import multiprocessing
import statistics
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
from benchmarks.performance.interleaved import median_interval
from benchmarks.performance.jpeg_tree import CLASSES

NETWORK = ("model=resnet", "model.depth=18", "model.block=basic", "model.stride_in=3x3", "+model.base_channels=8")
NETWORK_IMAGES = 16
STALL = 0.05  # a wait that counts, of a step


def decoders() -> tuple[dict[str, Callable[[bytes], Any]], list[str]]:
    """Return decoders of whole images by the packages there are, Pillow's first, and the packages that are missing."""

    def pillow(data: bytes, size: tuple[int, int] | None = None) -> Image.Image:
        image = Image.open(io.BytesIO(data))
        if size:
            image.draft(None, (image.width // 2, image.height // 2))
        image.load()
        return image

    ways: dict[str, Callable[[bytes], Any]] = {
        "Pillow": pillow,
        "Pillow, into an array": lambda data: np.asarray(pillow(data)),
        "Pillow, at half the size": lambda data: pillow(data, (2, 2)),
    }
    others = {"simplejpeg": _simplejpeg, "OpenCV": _opencv, "PyTurboJPEG": _turbojpeg}
    missing = []
    for name, make in others.items():
        try:
            ways[name] = make()
        except (ImportError, OSError, RuntimeError):
            missing.append(name)
    return ways, missing


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
    """Return the data module of ResNeXt's recipe, as a run has it."""
    trial: Any = expand(
        [
            *("model=resnext", "data=imagenet", f"data.root={tree}", f"data.num_classes={CLASSES}"),
            *("data.train_count=null", "data.test_count=null", "data.val_per_class=1", f"data.eval_batch_size={batch}"),
            *(f"recipe.batch_size={batch}", f"cluster.loader_workers={workers}", "logger=none", *overrides),
        ],
        False,
    )[0]
    return instantiate(trial.config["datamodule"])


def decode(
    tree: Path, images: int, round_images: int, ways: Mapping[str, Callable[[bytes], Any]]
) -> list[dict[str, Any]]:
    """Measure images a second of one thread, by its processor time.

    Plain decoding, our batches for training and our batches for testing take rounds of ``round_images`` images; all but
    the test batches are of the same images.
    """
    plain = ("recipe.augment.colour_jitter=0", "recipe.augment.lighting=0")
    full, short = (data_module(tree, round_images, overrides=values).train_dataloader() for values in ((), plain))
    tests = data_module(tree, round_images).test_dataloader()[0]
    split = full.dataset.split
    rows = [item for item in tests.sampler if item.stop - item.start == round_images] or list(tests.sampler)
    evaluated = cycle(rows)
    times: dict[str, list[float]] = {}

    def clock(name: str, count: int, work: Callable[[Any], Any], argument: Any) -> None:
        begun = time.thread_time()
        work(argument)
        times.setdefault(name, []).append((time.thread_time() - begun) / count)

    def decode_all(work: tuple[Callable[[bytes], Any], Sequence[bytes]]) -> None:
        decoder, files = work
        for data in files:
            decoder(data)

    items = list(full.sampler)[: max(1, images // round_images)]
    for item in track(items, "decoding", console=terminal.console(), transient=True):
        files = [split.files.read(split.rows[number]) for number in item.rows.tolist()]
        for name, decoder in ways.items():
            clock(f"decoding, {name}", round_images, decode_all, (decoder, files))
        clock("training batch, the papers' augmentation", round_images, full.dataset.__getitem__, item)
        clock("training batch, crop and flip", round_images, short.dataset.__getitem__, item)
        test = next(evaluated)
        clock("test batch", test.stop - test.start, tests.dataset.__getitem__, test)
    first = times["decoding, Pillow"]
    return [summarise(name, spent, first) for name, spent in times.items()]


def summarise(name: str, spent: Sequence[float], plain: Sequence[float]) -> dict[str, Any]:
    """Return a row: seconds an image, by rounds, and the same of plain decoding."""
    low, middle, high = median_interval(spent)
    ratio = statistics.median(b / a for a, b in zip(spent, plain, strict=True))
    return {"what": name, "images_per_s": 1 / middle, "low": 1 / high, "high": 1 / low, "ratio": ratio}


def processes() -> set[int]:
    """Return the process ids of this process's children, the workers."""
    return {child.pid for child in multiprocessing.active_children() if child.pid is not None}


def load(tree: Path, batch: int, workers: int) -> tuple[float, bool]:
    """Return images a second over an epoch, and whether the same processes made a second epoch's first batch.

    By the clock, the start of the workers left out.
    """
    loader = data_module(tree, batch, workers).train_dataloader()
    before = processes()
    batches = iter(loader)
    next(batches)
    begun, count = time.perf_counter(), 0
    for batch_of_images in batches:
        count += len(batch_of_images.images)
    rate = count / (time.perf_counter() - begun)
    first = processes() - before
    loader.sampler.set_epoch(1)
    next(iter(loader))
    return rate, len(first) == workers and processes() - before == first


def train_step(batch: int) -> Callable[[Any], None]:
    """Return a training step of a small ResNet on the first images of a batch."""
    trial: Any = expand([*NETWORK, "data=imagenet", f"data.num_classes={CLASSES}", "logger=none"], False)[0]
    net = instantiate(trial.config["model"]).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    count = min(batch, NETWORK_IMAGES)

    def step(data: Any) -> None:
        loss = F.cross_entropy(net(data.images[:count]), data.targets[:count])
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


def run_steps(loader: Any, step: Callable[[Any], None], length: float, epochs: int = 2) -> list[Step]:
    """Run training steps of ``length`` seconds at least, one batch after another."""
    return [done for epoch in range(epochs) for done in _epoch(loader, step, length, epoch)]


def _epoch(loader: Any, step: Callable[[Any], None], length: float, epoch: int) -> Iterator[Step]:
    loader.sampler.set_epoch(epoch)
    batches, end = iter(loader), object()
    while True:
        requested = time.perf_counter()
        batch = next(batches, end)
        if batch is end:
            return
        received = time.perf_counter()
        step(batch)
        time.sleep(max(0.0, received + length - time.perf_counter()))
        yield Step(epoch, requested, received, time.perf_counter())


def waiting(steps: Sequence[Step]) -> dict[str, Any]:
    """Return numbers of steps and of stalls, the longest wait for all but an epoch's first batch, and those waits; ms."""
    starts = [place for place, step in enumerate(steps) if not place or step.epoch != steps[place - 1].epoch]
    length = statistics.median(step.done - step.received for step in steps)
    waits = [step.received - step.requested for step in steps]
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
    """Return events for chrome://tracing or Perfetto: waits and steps, in microseconds from the first."""
    events = [
        {
            "name": name,
            "ph": "X",
            "pid": 0,
            "tid": 0,
            "ts": 1e6 * (begun - steps[0].requested),
            "dur": 1e6 * (end - begun),
        }
        for step in steps
        for name, begun, end in (
            ("wait for the batch", step.requested, step.received),
            ("step", step.received, step.done),
        )
    ]
    return {"traceEvents": events, "displayTimeUnit": "ms"}
