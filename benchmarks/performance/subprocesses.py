"""Measurements in a process of their own, so that peak memory is theirs. Imports no torch."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from benchmarks.performance.interleaved import with_interval
from benchmarks.records.clean_environment import clean_environment
from benchmarks.records.hardware import cores
from benchmarks.units import killed_by

TIMEOUT_S = 600


def steps(
    specification: Mapping[str, Any], passes: Sequence[Mapping[str, Any]], ranks: int = 1
) -> list[dict[str, Any]]:
    """Return several passes of one process: those of ``step_time``, an ``error`` in place of what memory did not hold.

    Args:
        passes: what of the specification differs, the one that takes least memory first.

    Raises:
        ValueError: as ``ask``.
    """
    argument = {**specification, "passes": list(passes)}
    return ask("performance.step_time", argument, specification["threads"], ranks, TIMEOUT_S * len(passes))["passes"]


def compare_steps(plain: Mapping[str, Any], other: Mapping[str, Any], repeats: int | None = None) -> dict[str, Any]:
    """Return time and memory of another training step beside a plain one: columns of a table.

    The ratio of their times, with its 95 % interval, is of steps that are interleaved ``repeats`` times (by default as often as
    time allows), on a CPU of processor time; memory, in MiB, of a process for each.

    Raises:
        ValueError: as ``ask``, or memory does not hold both networks.
    """
    clock = "perf_counter" if plain["gpu"] else "thread_time"
    rounds = {"fewest": repeats or 7, "most": repeats or 200, "seconds": 15.0, "clock": clock}
    beside = {**other, "beside": plain, "interleaved": rounds}
    alone, both = (ask("performance.step_time", one, one["threads"]) for one in (plain, beside))
    if "ratios" not in both:
        raise ValueError("out of memory with both networks")
    return {
        **with_interval("time_ratio", both["ratios"]),
        "memory_plain_mib": alone["memory_bytes"] / 2**20,
        "memory_mib": both["memory_bytes"] / 2**20,
        "rounds": len(both["ratios"]),
    }


@cache
def machine(gpu: bool) -> dict[str, Any]:
    """Return what a run here compares with the ``hardware`` of what was measured; the first call takes seconds."""
    found: dict[str, Any] = ask("training.options", gpu, 1)["hardware"]
    return found


def warn_if_busy() -> float | None:
    """Say on stderr that something computed on this machine lately: beside others, times of several threads are worthless.

    Return its load in the last minute, in processes; None where the machine was free.
    """
    load = os.getloadavg()[0]
    if load <= cores() / 2:
        return None
    message = (
        f"a load of {load:.1f} on {cores()} cores in the last minute: if others compute here, figures will be too low"
    )
    print(message, file=sys.stderr)
    return load


def ask(
    module: str, argument: Any, threads: int, ranks: int = 1, limit_s: int = TIMEOUT_S, python: str = sys.executable
) -> dict[str, Any]:
    """Return what the ``main`` of ``benchmarks.<module>`` returns in a process of its own, under torchrun for several ranks.

    Raises:
        ValueError: it failed, with the reason in one line.
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [python, *torchrun, "-m", "benchmarks.performance", module, json.dumps(argument)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=clean_environment(threads),
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"a few steps took more than {limit_s} s") from None
    if done.returncode < 0:
        raise ValueError(killed_by(-done.returncode))
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error" in line] or done.stderr.splitlines()
        raise ValueError(lines[-1].strip() if lines else f"exit code {done.returncode}")
    answer = json.loads(done.stdout.splitlines()[-1])
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer
