"""The operators of detectors by themselves: ``python -m benchmarks measure operators``."""

import argparse
import time
from collections.abc import Callable
from typing import Any

from benchmarks.performance.document import MS, MeasuredTable, add_write_option, interval, this_machine
from benchmarks.performance.interleaved import interleave, with_interval
from benchmarks.terminal import number

REGIONS, CHANNELS, SIDE = 512, 256, 7  # of RoIAlign: a training image of Mask R-CNN on a feature pyramid
STRIDES, HEIGHT, WIDTH = (4, 8, 16, 32), 800, 1312  # levels of the pyramid, and pixels of the image
BOXES, THRESHOLD = 2000, 0.7  # of non-maximum suppression: proposals of a training image
FEWEST, MOST, SECONDS = 10, 200, 20.0
TABLE = MeasuredTable(
    "operators",
    "Operators of detectors",
    {"operator": ("operator", "s"), **interval("seconds", "ms", MS)},
    f"RoIAlign of {REGIONS} regions to {SIDE}x{SIDE} from {CHANNELS} channels of {len(STRIDES)} levels, an image of "
    f"{HEIGHT}x{WIDTH} pixels; non-maximum suppression of {BOXES:,} random boxes at an overlap of {THRESHOLD}. float32. On a "
    "CPU one thread, by its processor time; medians of interleaved rounds with their 95 % intervals. Plain PyTorch: "
    "torchvision's compiled operators need a torch of their own build, so they are not beside them here.",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``measure operators``."""
    parser.description = (
        "Time RoIAlign, with and without its gradient, and non-maximum suppression; on a GPU where there is one."
    )
    seconds = number(0, "a number of seconds from 0")
    parser.add_argument("--seconds", type=seconds, default=SECONDS, help=f"of all rounds (default: {SECONDS:g})")
    add_write_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the table; return 0."""
    import torch

    torch.set_num_threads(1)
    environment = this_machine()
    TABLE.report(arguments, measure(environment["device"], arguments.seconds), environment)
    return 0


def measure(device: str, seconds: float, regions: int = REGIONS, channels: int = CHANNELS) -> list[dict[str, Any]]:
    """Return the time of each operator on ``device``, a row each."""
    import torch

    work = operators(torch.device(device), regions, channels)
    gpu = device == "cuda"

    def ended(operator: Callable[[], object]) -> Callable[[], None]:
        def once() -> None:
            operator()
            if gpu:
                torch.cuda.synchronize()

        return once

    clock = time.perf_counter if gpu else time.thread_time
    rounds = interleave(
        [ended(each) for each in work.values()], clock, warm_up=2, fewest=FEWEST, most=MOST, seconds=seconds
    )
    return [
        {"operator": name, **with_interval("seconds", times)}
        for name, times in zip(work, zip(*rounds, strict=True), strict=True)
    ]


def operators(device: Any, regions: int, channels: int) -> dict[str, Callable[[], Any]]:
    """Return what each operator computes, by name: the cut regions, their gradients by level, the rows that are kept."""
    import torch
    from hydra.utils import get_method

    roi_align = get_method("lightning_modules.nets.roi_align.roi_align")
    nms = get_method("lightning_modules.nets.boxes.nms")
    generator = torch.Generator().manual_seed(0)

    def random_boxes(count: int) -> Any:
        sides = torch.tensor([WIDTH, HEIGHT])
        corners = torch.rand(count, 2, generator=generator) * sides * 0.8
        extents = 16 + torch.rand(count, 2, generator=generator) * 300
        return torch.cat([corners, torch.minimum(corners + extents, sides)], dim=1).to(device)

    shapes = [(1, channels, HEIGHT // stride, WIDTH // stride) for stride in STRIDES]
    features = [torch.rand(shape, generator=generator).to(device).requires_grad_() for shape in shapes]
    boxes = random_boxes(regions)
    levels = torch.randint(len(STRIDES), (regions,), generator=generator).to(device)
    images = torch.zeros_like(levels)
    proposals, scores = random_boxes(BOXES), torch.rand(BOXES, generator=generator).to(device)

    def forward() -> Any:
        with torch.no_grad():
            return roi_align(features, STRIDES, boxes, images, levels, SIDE)

    def with_gradient() -> Any:
        return torch.autograd.grad(roi_align(features, STRIDES, boxes, images, levels, SIDE).sum(), features)

    return {
        "RoIAlign, forward": forward,
        "RoIAlign, forward and backward": with_gradient,
        "non-maximum suppression": lambda: nms(proposals, scores, THRESHOLD),
    }
