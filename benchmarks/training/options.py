"""What makes a step faster or smaller and leaves its network as it is: layout, compilation, TF32, recomputation, parts."""

import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.records.hardware import hardware, multiplies_bf16
from benchmarks.training.cuda_graph import capture_training
from benchmarks.training.environment import environment
from benchmarks.training.recomputation import recompute_stages

OF_AUTO = ("tuned", "allow_reduced_precision")
PROBE = 64, 64, 28  # images, channels, side
PROBES = 5


@dataclass(frozen=True)
class TrainingOptions:
    """Of a run: the trainer's keys that Lightning's Trainer does not have. None is off, for TF32 PyTorch's default."""

    compile: bool | None = None
    cuda_graph: bool | None = None
    channels_last: bool | None = None
    tf32: bool | None = None
    accumulate_grad_batches: int | None = None
    gradient_checkpointing: bool | None = None
    ema_decay: float | None = None
    on_out_of_memory: str | None = None

    @classmethod
    def take(cls, arguments: dict[str, Any]) -> "TrainingOptions":
        """Those that the trainer's ``arguments`` set; takes their keys out, as Lightning's trainer has none of them."""
        for key in OF_AUTO:
            arguments.pop(key, None)
        return cls(**{option.name: arguments.pop(option.name, None) for option in fields(cls)})

    def check(self, device: torch.device, precision: str) -> None:
        """Raise ValueError for what the device does not have."""
        if self.tf32 and not has_tf32(device):
            raise ValueError(
                f"trainer.tf32=true needs an NVIDIA GPU since Ampere; this is {environment(device)['device_name']}"
            )
        if self.compile and (problem := compile_problem(device)):
            raise ValueError(f"trainer.compile=true: {problem}")
        if self.cuda_graph and device.type != "cuda":
            raise ValueError(
                f"trainer.cuda_graph=true needs an NVIDIA GPU; this is {environment(device)['device_name']}"
            )
        if precision == "16-mixed" and device.type != "cuda":
            raise ValueError(
                f"trainer.precision=16-mixed needs a GPU; this is {environment(device)['device_name']}, whose mixed "
                "precision is bf16-mixed"
            )
        if precision.startswith("bf16") and not has_bf16(device):
            raise ValueError(
                f"trainer.precision={precision}: {environment(device)['device_name']} has no bfloat16 arithmetic; emulated, a "
                f"convolution takes {emulation(device, torch.bfloat16):.1f} times as long as in 32-true"
            )

    def apply(self, net: nn.Module) -> None:
        """Set up ``net`` and, for TF32, this process. Names of weights stay as they are. Raises ValueError for recomputation of
        a network that has no stages, and compilation of one that does not train by its forward."""
        if (self.compile or self.cuda_graph) and callable(getattr(type(net), "losses", None)):
            option, done = ("compile", "compiled") if self.compile else ("cuda_graph", "captured")
            raise ValueError(
                f"trainer.{option}=true: shapes in a {type(net).__name__} differ from step to step, so it is not {done}"
            )
        if self.tf32 is not None:
            torch.backends.cuda.matmul.allow_tf32 = self.tf32
            torch.backends.cudnn.allow_tf32 = self.tf32
        if self.gradient_checkpointing:
            recompute_stages(net)
        if self.channels_last:
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            net.register_forward_pre_hook(_channels_last)
        if self.compile:
            net.compile()
        if self.cuda_graph:
            capture_training(net)

    def as_dict(self, device: torch.device) -> dict[str, Any]:
        """Return the options in effect on ``device``, for a record."""
        tf32 = {"matmul": torch.backends.cuda.matmul.allow_tf32, "convolutions": torch.backends.cudnn.allow_tf32}
        return {
            "compile": bool(self.compile),
            "cuda_graph": bool(self.cuda_graph),
            "channels_last": bool(self.channels_last),
            "tf32": tf32 if has_tf32(device) else None,
            "accumulate_grad_batches": self.accumulate_grad_batches or 1,
            "gradient_checkpointing": bool(self.gradient_checkpointing),
            "ema_decay": self.ema_decay,
        }


def has_tf32(device: torch.device) -> bool:
    """Tell whether convolutions and matrix products can run in TF32."""
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def has_bf16(device: torch.device) -> bool:
    """Tell whether the device computes in bfloat16, without emulation; where that is not known it counts as one that does."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return multiplies_bf16(gpu=False) is not False


def compile_problem(device: torch.device) -> str | None:
    """Return what torch.compile lacks for this device, in one line; None if nothing."""
    if device.type == "cuda":
        return None if importlib.util.find_spec("triton") else "torch.compile needs triton for this GPU"
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    return None if shutil.which(compiler) else f"torch.compile needs a C++ compiler, and there is no {compiler}"


def emulation(device: torch.device, dtype: torch.dtype) -> float:
    """Return how much longer a 3x3 convolution takes, forward and backward, by autocast to ``dtype`` than in float32."""
    count, channels, side = PROBE
    layer = nn.Conv2d(channels, channels, 3, padding=1).to(device)
    images = torch.randn(count, channels, side, side, device=device)

    def once(lower: bool) -> float:
        started = time.perf_counter()
        with torch.autocast(device.type, dtype, enabled=lower):
            F.relu(layer(images)).sum().backward()
        synchronize(device)
        return time.perf_counter() - started

    for lower in (False, True):
        once(lower)
    full, low = zip(*[(once(False), once(True)) for _ in range(PROBES)], strict=True)
    return min(low) / min(full)


def synchronize(device: torch.device) -> None:
    """Wait for the device to finish."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _channels_last(net: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The images first; a detector also takes their sizes."""
    images, *others = arguments
    return images.contiguous(memory_format=torch.channels_last), *others


def main(gpu: bool) -> dict[str, Any]:
    """Return what of it this machine has, and ``hardware``: asked of a process of its own."""
    device = torch.device("cuda" if gpu else "cpu")
    has: dict[str, Callable[[torch.device], Any]] = {"tf32": has_tf32, "bf16": has_bf16, "compile": compile_problem}
    options = {name: ask(device) for name, ask in has.items()}
    return options | {"hardware": hardware(environment(device))}
