"""The most FLOPs a second that matrix products reach here: measured in a process of its own."""

import time
from typing import Any

import torch

from benchmarks.performance.interleaved import interleave
from benchmarks.training.environment import environment
from benchmarks.training.options import has_bf16, has_tf32, synchronize

SIDE = {"cpu": 2048, "cuda": 8192}
REPEATS = 10


def matmul_flops_per_s(device: torch.device, dtype: torch.dtype, tf32: bool = False) -> float:
    """Return the rate of products of square matrices, the best of ten; 2 n³ FLOPs each."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    side = SIDE[device.type]
    a, b = torch.randn(2, side, side, device=device).to(dtype)

    def product() -> None:
        torch.mm(a, b)
        synchronize(device)

    rounds = interleave([product], time.perf_counter, warm_up=1, fewest=REPEATS, most=REPEATS)
    return 2 * side**3 / min(rounds)[0]


def main(specification: dict[str, Any]) -> dict[str, Any]:
    """Return ``peaks``, the rate by precision: ``32-true``, and where the device has them ``tf32`` and ``bf16-mixed``; and the
    ``environment``.

    Args:
        specification: of a step, of which gpu and threads count.
    """
    torch.set_num_threads(specification["threads"])
    device = torch.device("cuda" if specification["gpu"] else "cpu")
    peaks = {"32-true": matmul_flops_per_s(device, torch.float32)}
    if has_tf32(device):
        peaks["tf32"] = matmul_flops_per_s(device, torch.float32, tf32=True)
    if has_bf16(device):
        peaks["bf16-mixed"] = matmul_flops_per_s(device, torch.bfloat16)
    return {"peaks": peaks, "environment": environment(device)}
