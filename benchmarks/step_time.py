"""Time and memory of a training step on random images: ``python -m benchmarks.step_time SPECIFICATION`` prints JSON.

Forward, backward and the optimiser's step as in training; not the making of batches, nor what Lightning adds to a step. In a
process of its own, under torchrun where a cell has several, so that peak memory is this network's.
"""

import json
import os
import statistics
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from hydra.utils import instantiate
from torch.nn.parallel import DistributedDataParallel

from benchmarks.environment import environment, peak_memory_bytes

WARM_UP = 3  # steps
MEASURED_S = 2.0
MOST_STEPS, FEWEST_STEPS = 50, 3
HALF = {"16": torch.float16, "bf16": torch.bfloat16}


def main(specification: dict[str, Any]) -> int:
    """Prints ``step_s`` (median), ``memory_bytes`` (above what the process took before it built the network) and
    ``hardware``; returns the exit code.

    Args:
        specification: model and optimizer (configuration nodes), image (C, H, W), batch (of this process), gpu, precision,
            threads.
    """
    torch.set_num_threads(specification["threads"])
    ranks, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local) if specification["gpu"] else torch.device("cpu")
    if ranks > 1:
        dist.init_process_group("nccl" if specification["gpu"] else "gloo")
    before = _peak(device, reset=True)
    width, _, kind = specification["precision"].partition("-")
    dtype = HALF.get(width) if kind == "true" else None
    net: Any = instantiate(specification["model"]).to(device, dtype).train()
    if ranks > 1:
        net = DistributedDataParallel(net, device_ids=[local] if specification["gpu"] else None)
    optimizer = instantiate(specification["optimizer"])(net.parameters())
    images = torch.randn(specification["batch"], *specification["image"], device=device, dtype=dtype)
    mixed = torch.autocast(device.type, HALF[width]) if kind == "mixed" else nullcontext()

    def step() -> float:
        started = time.perf_counter()
        optimizer.zero_grad()
        with mixed:
            logits = net(images)
            places = (logits.shape[0], *logits.shape[2:])
            loss = F.cross_entropy(logits, torch.zeros(places, dtype=torch.int64, device=device))
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    once = torch.tensor([step() for _ in range(WARM_UP)][-1])
    if ranks > 1:
        slowest = once.to(device)
        dist.all_reduce(slowest, op=dist.ReduceOp.MAX)  # all ranks make the same number of steps
        once = slowest.cpu()
    steps = min(max(int(MEASURED_S / float(once)), FEWEST_STEPS), MOST_STEPS)
    times = [step() for _ in range(steps)]
    if int(os.environ.get("RANK", 0)) == 0:
        found = {
            "step_s": statistics.median(times),
            "memory_bytes": _peak(device) - before,
            "hardware": environment(device)["device_name"],
        }
        print(json.dumps(found))
    if ranks > 1:
        dist.destroy_process_group()
    return 0


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
