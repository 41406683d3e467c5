"""The operators of detectors beside torchvision's.

``main`` may run in another environment: it needs torch and torchvision, and nothing else that the suite needs.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module, metadata
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.performance.interleaved import interleave, with_interval

REGIONS, CHANNELS, SIDE, SAMPLES = 512, 256, 7, 2  # of RoIAlign: a training image of Mask R-CNN on a feature pyramid
STRIDES, HEIGHT, WIDTH = (4, 8, 16, 32), 800, 1312  # levels of the pyramid, and pixels of the image
BOXES, THRESHOLD = 2000, 0.7  # of non-maximum suppression: proposals of a training image
FEWEST, MOST = 10, 200
Work = Mapping[str, Callable[[], Any]]


class Inputs:
    """What the operators get, random: maps of each level, regions with their levels, boxes with scores."""

    def __init__(self, device: torch.device, regions: int = REGIONS, channels: int = CHANNELS) -> None:
        generator = torch.Generator().manual_seed(0)

        def random_boxes(count: int) -> Tensor:
            sides = torch.tensor([WIDTH, HEIGHT])
            corners = torch.rand(count, 2, generator=generator) * sides * 0.8
            extents = 16 + torch.rand(count, 2, generator=generator) * 300
            return torch.cat([corners, torch.minimum(corners + extents, sides)], dim=1).to(device)

        shapes = [(1, channels, HEIGHT // stride, WIDTH // stride) for stride in STRIDES]
        self.features = [torch.rand(shape, generator=generator).to(device).requires_grad_() for shape in shapes]
        self.boxes = random_boxes(regions)
        self.levels = torch.randint(len(STRIDES), (regions,), generator=generator).to(device)
        self.images = torch.zeros_like(self.levels)
        self.proposals, self.scores = random_boxes(BOXES), torch.rand(BOXES, generator=generator).to(device)


def operators(inputs: Inputs) -> Work:
    """Return what each operator of ours computes, by name: cut regions, their gradients by level, the rows that are kept."""
    roi_align = import_module("lightning_modules.nets.roi_align").roi_align
    nms = import_module("lightning_modules.nets.boxes").nms

    def pooled() -> Tensor:
        cut: Tensor = roi_align(inputs.features, STRIDES, inputs.boxes, inputs.images, inputs.levels, SIDE, SAMPLES)
        return cut

    return _work(pooled, lambda: nms(inputs.proposals, inputs.scores, THRESHOLD), inputs)


def torchvision_operators(ops: Any, inputs: Inputs) -> Work:
    """Return the same by torchvision's operators, level by level, as its MultiScaleRoIAlign goes over them.

    ops: ``torchvision.ops``.
    """
    regions = torch.cat([inputs.images[:, None].to(inputs.boxes.dtype), inputs.boxes], dim=1)

    def pooled() -> Tensor:
        cut = torch.zeros(len(regions), inputs.features[0].shape[1], SIDE, SIDE, device=regions.device)
        for level, (features, stride) in enumerate(zip(inputs.features, STRIDES, strict=True)):
            rows = torch.where(inputs.levels == level)[0]
            cut[rows] = ops.roi_align(features, regions[rows], SIDE, 1 / stride, SAMPLES, True)
        return cut

    return _work(pooled, lambda: ops.nms(inputs.proposals, inputs.scores, THRESHOLD), inputs)


def _work(pooled: Callable[[], Tensor], kept: Callable[[], Tensor], inputs: Inputs) -> Work:
    def forward() -> Tensor:
        with torch.no_grad():
            return pooled()

    return {
        "RoIAlign, forward": forward,
        "RoIAlign, forward and backward": lambda: torch.autograd.grad(pooled().sum(), inputs.features),
        "non-maximum suppression": kept,
    }


def times(work: Work, device: torch.device, seconds: float) -> dict[str, list[float]]:
    """Return the seconds of each piece of work in every round, by name: interleaved, on a CPU of processor time."""
    gpu = device.type == "cuda"

    def to_its_end(operator: Callable[[], object]) -> None:
        operator()
        if gpu:
            torch.cuda.synchronize()

    clock = time.perf_counter if gpu else time.thread_time
    pieces = [partial(to_its_end, operator) for operator in work.values()]
    rounds = interleave(pieces, clock, warm_up=2, fewest=FEWEST, most=MOST, seconds=seconds)
    return dict(zip(work, map(list, zip(*rounds, strict=True)), strict=True))


def beside(inputs: Inputs, ops: Any, seconds: float) -> dict[str, dict[str, float]]:
    """Return by operator its median seconds, ours (``here``) and torchvision's, and their ratio with its interval.

    Raises:
        ValueError: they do not compute the same, float32: to 1e-4 of the largest, and the same rows.
    """
    ours, torchvisions = operators(inputs), torchvision_operators(ops, inputs)
    for name, operator in ours.items():
        # What is no tensor is several; a tensor is gone through by its rows.
        a, b = (torch.cat([part.flatten() for part in work()]) for work in (operator, torchvisions[name]))
        if a.shape != b.shape or float((a - b).abs().max()) > 1e-4 * float(b.abs().max()):
            raise ValueError(f"{name} is not what torchvision computes")
    both = {**ours, **{f"torchvision's {name}": work for name, work in torchvisions.items()}}
    taken = times(both, inputs.boxes.device, seconds)
    rows = {}
    for name in ours:
        one, other = taken[name], taken[f"torchvision's {name}"]
        ratio = with_interval("ratio", [a / b for a, b in zip(one, other, strict=True)])
        rows[name] = {"here": median(one), "torchvision": median(other), **ratio}
    return rows


def main(specification: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rows, as ``beside`` has them, the device's type and the versions.

    Args:
        specification: seconds, of all rounds; on a GPU where there is one.
    """
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ops = import_module("torchvision.ops")
    versions = {"torch": torch.__version__, "torchvision": metadata.version("torchvision")}
    rows = beside(Inputs(device), ops, specification["seconds"])
    return {"rows": rows, "device": device.type, "versions": versions}
