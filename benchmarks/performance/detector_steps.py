"""Time of a detector's training steps and forward passes in two layouts, on images and objects of its data set.

How long a step takes depends on the objects: random images, on which `step_time` measures, have none.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import cycle, islice
from typing import Any

import torch
from hydra.utils import instantiate
from torch import nn

from benchmarks.performance.hand_written_loop import BareLoop
from benchmarks.performance.interleaved import interleave
from benchmarks.training.options import TrainingOptions, synchronize

BATCHES = 16  # of training, one after the other and again from the first


class Batches:
    """A loader whose batches are there, and come again and again; a sampler of its own, as it has no other order."""

    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches = batches
        self.sampler = self

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        """Yield batches without end."""
        return cycle(self.batches)

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: every epoch has the same."""


def main(specification: dict[str, Any]) -> dict[str, list[float]]:
    """Return ``training`` and ``forward``, the times in channels_last as multiples of those in NCHW, one of each round.

    Args:
        specification: model, recipe, datamodule (configuration nodes), epochs, precision, seed, threads, gpu and interleaved
            (arguments of ``interleave``, with the name of its clock).

    Raises:
        ValueError: the device lacks what the specification asks for.
    """
    torch.set_num_threads(specification["threads"])
    torch.manual_seed(specification["seed"])
    device = torch.device("cuda" if specification["gpu"] else "cpu")
    datamodule = instantiate(specification["datamodule"])
    datamodule.setup("fit")
    training = Batches(list(islice(datamodule.train_dataloader(), BATCHES)))
    images, objects = next(iter(datamodule.val_dataloader()))[:2]
    shown = images.to(device), torch.stack([one["size"] for one in objects]).to(device)
    weights = instantiate(specification["model"]).state_dict()
    loops = [_loop(specification, layout, weights, training, device) for layout in (True, False)]
    how = specification["interleaved"]
    # Before training, which by rounding makes two networks of one, each with detections of its own.
    forward = _ratios([_forward(loop, shown) for loop in loops], how, device)
    for loop in loops:
        loop.net.train()
    return {"training": _ratios([loop.step for loop in loops], how, device), "forward": forward}


def _loop(
    specification: Mapping[str, Any],
    channels_last: bool,
    weights: Mapping[str, Any],
    batches: Batches,
    device: torch.device,
) -> BareLoop:
    options, precision = TrainingOptions(channels_last=channels_last), specification["precision"]
    options.check(device, precision)
    net: nn.Module = instantiate(specification["model"])
    net.load_state_dict(weights)
    options.apply(net.to(device).eval())
    loop = BareLoop(net, specification["recipe"], batches, precision, specification["epochs"], specification["seed"])
    loop.begin(0)
    return loop


def _forward(loop: BareLoop, shown: tuple[Any, ...]) -> Callable[[], None]:
    """Return what detects the objects of images, given with their sizes, as an evaluation does."""

    def forward() -> None:
        mixed = torch.autocast(loop.device.type, torch.bfloat16) if loop.half else nullcontext()
        with torch.inference_mode(), mixed:
            loop.net(*shown)

    return forward


def _ratios(both: Sequence[Callable[[], None]], how: Mapping[str, Any], device: torch.device) -> list[float]:
    def waited_for(work: Callable[[], None]) -> Callable[[], None]:
        def done() -> None:
            work()
            synchronize(device)

        return done

    timing = dict(how)
    clock = getattr(time, timing.pop("clock"))
    rounds = interleave([waited_for(work) for work in both], clock, warm_up=3, **timing)
    return [first / second for first, second in rounds]
