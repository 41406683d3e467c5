"""Measurements in a process of their own, so that peak memory is theirs. Imports no torch."""

import json
import subprocess
import sys
from typing import Any

from benchmarks.launch import cores, on_gpu
from benchmarks.process_group import clean_environment
from benchmarks.record import killed_by

TIMEOUT_S = 600
SWITCHES = ("compile", "channels_last", "tf32", "gradient_checkpointing", "accumulate_grad_batches")


def specification(config: dict[str, Any]) -> dict[str, Any]:
    """Of a training step of one process of a run, for ``benchmarks.step_time``."""
    data, trainer, gpu = config["data"], config["trainer"], on_gpu(config)
    share = cores() // (trainer["devices"] * (1 if gpu else config["launch"]["workers"]))
    return {
        "model": config["model"],
        "optimizer": config["recipe"]["optimizer"],
        "image": [data["in_channels"], *data["image_size"]],
        "batch": config["recipe"]["batch_size"] // (trainer["devices"] * trainer["num_nodes"]),
        "gpu": gpu,
        "precision": trainer["precision"],
        "threads": config["cluster"]["threads_per_process"] or max(1, share),
        "switches": {name: trainer[name] for name in SWITCHES if trainer.get(name) is not None},
    }


def ask(module: str, argument: Any, threads: int, ranks: int = 1) -> dict[str, Any]:
    """The JSON that ``python -m benchmarks.<module> ARGUMENT`` prints, under torchrun for several ranks.

    Raises:
        ValueError: it failed, with the reason in one line.
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *torchrun, "-m", f"benchmarks.{module}", json.dumps(argument)]
    environment = clean_environment(threads)
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"a few steps took more than {TIMEOUT_S} s") from None
    if done.returncode < 0:
        raise ValueError(killed_by(-done.returncode))
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error" in line] or done.stderr.splitlines()
        raise ValueError(lines[-1].strip() if lines else f"exit code {done.returncode}")
    found = json.loads(done.stdout.splitlines()[-1])
    if "error" in found:
        raise ValueError(found["error"])
    return found
