"""Time and memory of a training step on random images: ``python -m benchmarks.step_time SPECIFICATION`` prints JSON.

Forward, backward and the optimiser's step as in training, or the forward of evaluation; not what Lightning adds to a step, nor
the making of batches unless it is asked for. In a process of its own, under torchrun where a cell has several, so that peak
memory is this network's.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from hydra.utils import instantiate
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from benchmarks.environment import environment, peak_memory_bytes
from benchmarks.out_of_memory import is_out_of_memory
from benchmarks.switches import Switches, synchronize

WARM_UP = 3  # steps
MEASURED_S = 2.0
MOST_STEPS, FEWEST_STEPS = 50, 3
HALF = {"16": torch.float16, "bf16": torch.bfloat16}


def main(specification: dict[str, Any]) -> int:
    """Prints ``step_s`` (median), ``quartiles_s``, ``memory_bytes`` (above what the process took before it built the network)
    and ``hardware``, or ``error`` where memory does not suffice; returns the exit code.

    Args:
        specification: model and optimizer (configuration nodes), image (C, H, W), batch (of this process), gpu, precision,
            threads; where they are to be set forward (true: no training), switches (fields of ``Switches``) and datamodule
            (configuration node whose training batches are made and used).
    """
    try:
        found = _measured(specification)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        found = {"error": "out of memory"}
    if int(os.environ.get("RANK", 0)) == 0:
        print(json.dumps(found))
    return 0


def _measured(specification: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(specification["threads"])
    ranks, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local) if specification["gpu"] else torch.device("cpu")
    if ranks > 1:
        dist.init_process_group("nccl" if specification["gpu"] else "gloo")
    before = _peak(device, reset=True)
    width, _, kind = specification["precision"].partition("-")
    dtype = HALF.get(width) if kind == "true" else None
    training = not specification.get("forward")
    net: Any = instantiate(specification["model"]).to(device, dtype).train(training)
    switches = Switches(**specification.get("switches", {}))
    switches.apply(net)
    if ranks > 1:
        net = DistributedDataParallel(net, device_ids=[local] if specification["gpu"] else None)
    optimizer = instantiate(specification["optimizer"])(net.parameters())
    batches = _batches(specification, device, dtype)
    mixed = torch.autocast(device.type, HALF[width]) if kind == "mixed" else nullcontext()

    def step() -> float:
        started = time.perf_counter()
        images = next(batches)
        if training:
            optimizer.zero_grad()
            for part in images.chunk(switches.accumulate_grad_batches or 1):
                with mixed:
                    logits = net(part)
                    places = (logits.shape[0], *logits.shape[2:])
                    loss = F.cross_entropy(logits, torch.zeros(places, dtype=torch.int64, device=device))
                loss.backward()
            optimizer.step()
        else:
            with torch.inference_mode(), mixed:
                net(images)
        synchronize(device)
        return time.perf_counter() - started

    once, began = torch.tensor(0.0), time.perf_counter()
    for done in range(WARM_UP):
        if ranks == 1 and done >= 2 and time.perf_counter() - began > MEASURED_S:
            break  # slow steps need no third; ranks make the same number
        once = torch.tensor(step())
    if ranks > 1:
        slowest = once.to(device)
        dist.all_reduce(slowest, op=dist.ReduceOp.MAX)  # all ranks make the same number of steps
        once = slowest.cpu()
    steps = min(max(int(MEASURED_S / float(once)), FEWEST_STEPS), MOST_STEPS)
    times = [step() for _ in range(steps)]
    if ranks > 1:
        dist.destroy_process_group()
    lower, _, upper = statistics.quantiles(times, method="inclusive")
    return {
        "step_s": statistics.median(times),
        "quartiles_s": [lower, upper],
        "steps": steps,
        "memory_bytes": _peak(device) - before,
        "hardware": environment(device)["device_name"],
    }


def _batches(specification: dict[str, Any], device: torch.device, dtype: torch.dtype | None) -> Iterator[Tensor]:
    """Images of one batch after the other on the device: the same random ones, or a data module's."""
    if "datamodule" not in specification:
        images = torch.randn(specification["batch"], *specification["image"], device=device, dtype=dtype)
        while True:
            yield images
    datamodule = instantiate(specification["datamodule"])
    datamodule.setup("fit")
    loader = datamodule.train_dataloader()
    while True:
        for batch in loader:
            yield batch[0].to(device, dtype, non_blocking=True)


def _peak(device: torch.device, reset: bool = False) -> int:
    """Most memory used so far, or since the last reset.

    On Linux that of this program: ``ru_maxrss`` also knows that of the process that started it.
    """
    status = Path("/proc/self/status")
    if device.type == "cuda" or not status.exists():
        return peak_memory_bytes(device)
    if reset:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak becomes what is in use
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
