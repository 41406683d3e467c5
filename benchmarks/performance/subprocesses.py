"""Measurements in a process of their own, so that peak memory is theirs. Imports no torch."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.launch.process import clean_environment
from benchmarks.records.hardware import cores
from benchmarks.units import killed_by

TIMEOUT_S = 600


def steps(
    specification: Mapping[str, Any], passes: Sequence[Mapping[str, Any]], ranks: int = 1
) -> list[dict[str, Any]]:
    """Several passes of one process: those of ``step_time``, an ``error`` in place of what memory did not hold.

    Args:
        passes: what of the specification differs, the one that takes least memory first.

    Raises:
        ValueError: as ``ask``.
    """
    asked = {**specification, "passes": list(passes)}
    return ask("performance.step_time", asked, specification["threads"], ranks, TIMEOUT_S * len(passes))["passes"]


def warn_if_busy() -> None:
    """Says on stderr that something computed on this machine lately: beside others, times of several threads are worthless."""
    load = os.getloadavg()[0]
    if load > cores() / 2:
        said = f"a load of {load:.1f} on {cores()} cores in the last minute: if others compute here, figures will be too low"
        print(said, file=sys.stderr)


def ask(module: str, argument: Any, threads: int, ranks: int = 1, limit_s: int = TIMEOUT_S) -> dict[str, Any]:
    """The JSON that ``python -m benchmarks.<module> ARGUMENT`` prints, under torchrun for several ranks.

    Raises:
        ValueError: it failed, with the reason in one line.
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *torchrun, "-m", f"benchmarks.{module}", json.dumps(argument)]
    environment = clean_environment(threads)
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"a few steps took more than {limit_s} s") from None
    if done.returncode < 0:
        raise ValueError(killed_by(-done.returncode))
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error" in line] or done.stderr.splitlines()
        raise ValueError(lines[-1].strip() if lines else f"exit code {done.returncode}")
    found = json.loads(done.stdout.splitlines()[-1])
    if "error" in found:
        raise ValueError(found["error"])
    return found
