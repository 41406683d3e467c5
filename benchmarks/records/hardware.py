"""The cores and GPUs of this machine, and which of an environment's facts a measurement holds for."""

import os
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache
def gpus() -> int:
    """GPUs that PyTorch sees, asked of a process of its own: this one stays free of PyTorch."""
    if sys.platform == "linux" and not any(map(os.path.exists, ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))):
        return 0
    probe = "import torch; print(torch.cuda.device_count())"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
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
