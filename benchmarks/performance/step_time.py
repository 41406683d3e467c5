"""Time and memory of training steps on random images.

Forward, backward and the optimiser's step as in training, or the forward of evaluation; not what Lightning adds to a step, nor
the making of batches unless it is asked for. In a process of its own, under torchrun where a trial has several, so that peak
memory is this network's.
"""

import ctypes
import gc
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from hydra.utils import instantiate
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from benchmarks.performance.interleaved import interleave
from benchmarks.training.cuda_graph import forget_captured
from benchmarks.training.environment import environment, peak_memory_bytes
from benchmarks.training.options import TrainingOptions, synchronize

WARM_UP, WARM_UP_S = 3, 0.5  # steps, and where they are short as many more as go into this time
MEASURED_S = 2.0
MOST_STEPS, FEWEST_STEPS = 50, 3
INTERLEAVED = {"clock": "perf_counter", "warm_up": 0, "fewest": 5, "most": MOST_STEPS, "seconds": 6.0}
# For matrix products and convolutions, PyTorch's defaults: what a step without trainer.tf32 has beside one that sets it.
TF32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
DTYPES = {"16": torch.float16, "bf16": torch.bfloat16, "64": torch.float64}


def main(specification: dict[str, Any]) -> dict[str, Any]:
    """Return ``step_s`` (median), ``quartiles_s``, ``first_s`` (the first step, in which a network is compiled),
    ``memory_bytes`` (above what the process took before it built the network), ``options`` in effect and ``hardware``, or
    ``error`` where memory does not suffice.

    Args:
        specification: model and optimizer (configuration nodes), image (C, H, W), batch (of this process), gpu, precision,
            threads; where they are to be set forward (true: no training), options (fields of ``TrainingOptions``), datamodule
            (configuration node whose training batches are made and used), measured_s (how long to measure) and beside (what
            of the specification differs in a step that is interleaved with this one afterwards, as ``interleaved`` says in
            arguments of ``interleave``: ``beside_s`` and ``ratios`` are added). Where it has passes, a list of what differs
            from one measurement to the next, the one that takes least memory first, it is ``{"passes": [...]}``; what
            follows one that memory does not suffice for is not tried.
    """
    passes = specification.pop("passes", None)
    results = _measured(specification, passes or [{}])
    return results[0] if passes is None else {"passes": results}


def _measured(specification: Mapping[str, Any], passes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    torch.set_num_threads(specification["threads"])
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if specification["gpu"] else torch.device("cpu")
    if specification["gpu"]:
        torch.cuda.set_device(device)
    if ranks > 1:
        dist.init_process_group("nccl" if specification["gpu"] else "gloo")
    before = _peak(device, reset=True)
    results: list[dict[str, Any]] = []
    try:
        steps = Steps(specification, device)
        for one in passes:
            if results:
                forget_captured(steps.net)
                _forget(device, bool(steps.options.compile))
            step = steps.of({**specification, **one})
            first_s = step()
            taken = _times(step, device, ranks, specification.get("measured_s", MEASURED_S))
            lower, _, upper = statistics.quantiles(taken, method="inclusive")
            results.append(
                {
                    "step_s": statistics.median(taken),
                    "quartiles_s": [lower, upper],
                    "first_s": first_s,
                    "steps": len(taken),
                    "memory_bytes": _peak(device) - before,
                    "options": steps.options.as_dict(device),
                    "hardware": environment(device)["device_name"],
                }
            )
            if "beside" in specification:
                other = {**specification, "forward": one.get("forward", False), **specification["beside"]}
                results[-1] |= interleaved(step, other, specification.get("interleaved", {}), device)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        results += [{"error": "out of memory"}] * (len(passes) - len(results))
    if ranks > 1:
        dist.destroy_process_group()
    return results


class Steps:
    """A network and its optimiser, as a specification has them; ``of`` makes their steps.

    Raises:
        ValueError: the device lacks what the specification asks for.
    """

    def __init__(self, specification: Mapping[str, Any], device: torch.device) -> None:
        self.device = device
        self.options = TrainingOptions(**specification.get("options", {}))
        self.options.check(device, specification["precision"])
        width, _, kind = specification["precision"].partition("-")
        self.dtype = DTYPES.get(width) if kind == "true" else None
        self.mixed = torch.autocast(device.type, DTYPES[width]) if kind == "mixed" else nullcontext()
        self.net = instantiate(specification["model"]).to(device, self.dtype)
        self.options.apply(self.net)
        self.tf32 = TF32 if self.options.tf32 is None else (self.options.tf32, self.options.tf32)
        self.optimizer = instantiate(specification["optimizer"])(self.net.parameters())
        decay = self.options.ema_decay
        # As Lightning's callback makes it.
        self.average = decay and AveragedModel(self.net, avg_fn=get_ema_avg_fn(decay), use_buffers=True)

    def of(self, specification: Mapping[str, Any]) -> Callable[[], float]:
        """Return what makes a step of training, or of evaluation with ``forward``, waits for it, and returns its seconds."""
        training = not specification.get("forward")
        self.net.train(training)
        called = self.net
        if training and dist.is_initialized():
            called = DistributedDataParallel(called, device_ids=[self.device.index] if specification["gpu"] else None)
        batches = _batches(specification, self.device, self.dtype)

        def step() -> float:
            # Set for the whole process, maybe otherwise by a step that takes turns with this one.
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = self.tf32
            started = time.perf_counter()
            images = next(batches)
            if training:
                self._train(called, images)
            else:
                with torch.inference_mode(), self.mixed:
                    called(images)
            synchronize(self.device)
            return time.perf_counter() - started

        return step

    def _train(self, called: Any, images: Tensor) -> None:
        self.optimizer.zero_grad()
        for part in images.chunk(self.options.accumulate_grad_batches or 1):
            with self.mixed:
                logits = called(part)
                places = (logits.shape[0], *logits.shape[2:])
                loss = F.cross_entropy(logits, torch.zeros(places, dtype=torch.int64, device=self.device))
            loss.backward()
        self.optimizer.step()
        if self.average:
            self.average.update_parameters(self.net)


def _times(step: Callable[[], float], device: torch.device, ranks: int, measured_s: float) -> list[float]:
    """Return the seconds of each step after the first and a warm-up; all ranks make the same number of steps."""
    once, began = torch.tensor(0.0), time.perf_counter()
    for done in range(1, WARM_UP):
        if ranks == 1 and done >= 2 and time.perf_counter() - began > MEASURED_S:
            break  # slow steps need no third
        once = torch.tensor(step())
    if ranks > 1:
        slowest = once.to(device)
        dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
        once = slowest.cpu()
    for _ in range(min(int(WARM_UP_S / float(once)), MOST_STEPS)):
        step()
    return [step() for _ in range(min(max(int(measured_s / float(once)), FEWEST_STEPS), MOST_STEPS))]


def interleaved(
    step: Callable[[], float], specification: Mapping[str, Any], how: Mapping[str, Any], device: torch.device
) -> dict[str, Any]:
    """Return ``beside_s``, the median time of another specification's step, and ``ratios``, this step's times to its in each
    round, as a machine that is slow for a while is slow for both. Empty where memory does not hold two networks.
    """
    timing: dict[str, Any] = {**INTERLEAVED, **how}
    try:
        beside = Steps(specification, device).of(specification)
        for _ in range(WARM_UP):  # of this one alone: the other is warm
            beside()
        rounds = interleave((step, beside), getattr(time, timing.pop("clock")), **timing)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        return {}
    return {
        "beside_s": statistics.median(other for _, other in rounds),
        "ratios": [own / other for own, other in rounds],
    }


def _is_out_of_memory(error: BaseException) -> bool:
    from benchmarks.training.out_of_memory import is_out_of_memory  # which imports Lightning, seconds

    traceback.clear_frames(error.__traceback__)  # they hold the activations
    return is_out_of_memory(error)


def _forget(device: torch.device, compiled: bool) -> None:
    """Free what a pass has left, so that the next one's peak is its own, and its shapes are compiled for it alone."""
    if compiled:
        torch._dynamo.reset()  # otherwise a second batch size would be compiled for any
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif sys.platform == "linux":
        with suppress(AttributeError):  # a C library without it
            ctypes.CDLL(None).malloc_trim(0)
    _peak(device, reset=True)


def _batches(specification: Mapping[str, Any], device: torch.device, dtype: torch.dtype | None) -> Iterator[Tensor]:
    """Yield images of one batch after the other on the device: the same random ones, or a data module's."""
    if "datamodule" not in specification:
        images = torch.randn(specification["batch"], *specification["image"], device=device, dtype=dtype)
        while True:
            yield images
    datamodule = instantiate(specification["datamodule"])
    datamodule.device = device
    datamodule.setup("fit")
    loader = datamodule.train_dataloader()
    while True:
        for batch in loader:
            yield batch[0].to(device, dtype, non_blocking=True)


def _peak(device: torch.device, reset: bool = False) -> int:
    """Return the most memory used so far, or since the last reset.

    On Linux that of this program: ``ru_maxrss`` also knows that of the process that started it.
    """
    status = Path("/proc/self/status")
    if device.type == "cuda" or not status.exists():
        if reset and device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        return peak_memory_bytes(device)
    if reset:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak becomes what is in use
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
