"""Where a run happened: code, packages and hardware, for its record."""

import hashlib
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from benchmarks.records.code_version import IS_CHECKOUT, ROOT, training_sha256, user_code
from benchmarks.records.hardware import linux_says, multiplies_bf16
from benchmarks.records.record import Code, Environment, to_json

PACKAGES = ("torch", "pytorch-lightning", "hydra-core", "torchmetrics", "fvcore", "wandb", "numpy", "scipy", "timm")


def code(config: Mapping[str, Any]) -> Code:
    """Return the version of the suite, the git commit, and hashes of what differs from it and of the code that trains.

    The first hash is None where nothing differs or git is absent.
    """
    commit, digest = checkout()
    return Code(
        version=_version("compute-accuracy"),
        commit=commit,
        diff_sha256=digest,
        training_sha256=training_sha256(),
        user_code=user_code(config) or None,
    )


@lru_cache
def checkout() -> tuple[str | None, str | None]:
    """Return the git commit and the SHA-256 of what differs from it, as they are at the first call: the code runs as it was
    imported."""
    commit = _git("rev-parse", "HEAD")
    difference = _git("diff", "HEAD", "--", "*.py", "conf") if commit else None
    return commit or None, hashlib.sha256(difference.encode()).hexdigest() if difference else None


def environment(device: torch.device) -> dict[str, Any]:
    """Return packages, processor, memory and threads of this process: a record's ``Environment`` as plain types."""
    cuda = device.type == "cuda"
    return to_json(
        Environment(
            python=platform.python_version(),
            platform=platform.platform(),
            packages={name: number for name in PACKAGES if (number := _version(name))},
            device=device.type,
            device_name=torch.cuda.get_device_name(device) if cuda else _processor(),
            cores=os.cpu_count(),
            threads=torch.get_num_threads(),
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            cuda=torch.version.cuda,
            cudnn=torch.backends.cudnn.version() if cuda else None,
        )
    )


def process_rank() -> int:
    """Return the number of this process among those of its run, from 0."""
    return int(os.environ.get("RANK", 0))


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory used so far: by the allocator on a GPU, by the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _processor() -> str:
    """Return the processor's name and the instructions that PyTorch uses of it, as a name like `AMD EPYC` is of many."""
    name = linux_says("cpuinfo", "model name") or platform.processor() or platform.machine()
    instructions = [torch.backends.cpu.get_cpu_capability(), *["bfloat16"] * bool(multiplies_bf16(gpu=False))]
    instructions += ["AMX"] * ("amx_bf16" in linux_says("cpuinfo", "flags").split())
    return f"{name} ({', '.join(instructions)})"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    if not IS_CHECKOUT:  # installed, perhaps inside the user's own repository
        return ""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
