"""The cores and GPUs of this machine, and which of an environment's facts a measurement holds for."""

import os
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

BF16_FLAGS = {"avx512_bf16", "amx_bf16", "avx10_2", "bf16", "svebf16"}  # of /proc/cpuinfo: x86 and Arm


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache
def gpus() -> int:
    """GPUs that PyTorch sees, asked of a process of its own: this one stays free of PyTorch."""
    if sys.platform == "linux" and not any(map(os.path.exists, ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))):
        return 0
    return _asked("torch.cuda.device_count()")


@lru_cache
def multiplies_bf16(gpu: bool) -> bool | None:
    """Whether the GPU, or this machine's cores, compute in bfloat16 without emulation; None where that is not known."""
    if gpu:
        return bool(
            _asked("int(torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False))")
        )
    flags = linux_says("cpuinfo", "flags", "Features").split()
    return not BF16_FLAGS.isdisjoint(flags) if flags else None


def linux_says(file: str, *names: str) -> str:
    """Return what ``/proc/<file>`` has first under one of these names; empty where it has none, or on another system."""
    try:
        lines = Path("/proc", file).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(names)), "")


def _asked(expression: str) -> int:
    """Return what a process of its own, which imports torch, says; 0 where it fails."""
    probe = f"import torch; print({expression})"
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    return int(done.stdout) if done.returncode == 0 else 0


def on_gpu(config: dict[str, Any]) -> bool:
    """Whether a trial would run on GPUs here."""
    accelerator = config["trainer"]["accelerator"]
    return accelerator in {"gpu", "cuda"} or (accelerator == "auto" and gpus() > 0)


def hardware(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What of a record's environment measurements hold for: device, cores, and the versions that compute."""
    return {key: environment[key] for key in ("device", "device_name", "cores", "cuda", "cudnn")} | {
        "torch": environment["packages"]["torch"]
    }
