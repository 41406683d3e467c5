"""What a command takes from its start to its end, for ``subprocesses.ask``.

A process of its own that imports next to nothing: Linux gives a process as its peak memory at least what the one that started
it had, and everything that the command leaves behind has to come to a process that waits for it.
"""

import ctypes
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any


def main(command: Sequence[str]) -> dict[str, Any]:
    """Run a command to its end; return ``measured``, processor and wall seconds and peak memory in MiB, and its ``output``.

    Processor time is of all its processes, memory of the largest; ``own_processor_s`` and ``own_memory_mib`` are of the one
    that was started and of those that it has waited for. A run's own process is started by a server, which its launcher does
    not wait for. In place of these ``error``, where the command fails or this is not Linux.
    """
    if sys.platform != "linux":
        return {"error": "the processor time of all that a process has started is known on Linux alone"}
    pr_set_child_subreaper = 36  # this process is the parent of all that its children leave behind
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1)
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors)
        measured = {"processor_s": 0.0, "wall_s": 0.0, "memory_mib": 0.0}
        with suppress(ChildProcessError):  # none is left
            while True:
                pid, status, usage = os.wait4(-1, 0)
                processor_s, memory_mib = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**10
                measured["processor_s"] += processor_s
                measured["memory_mib"] = max(measured["memory_mib"], memory_mib)
                if pid == process.pid:
                    measured["wall_s"] = time.perf_counter() - started
                    measured |= {"own_processor_s": processor_s, "own_memory_mib": memory_mib}
                    process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            output.seek(0)
            # A run says why it failed in the first line of what it prints.
            said = errors.read().strip().splitlines()[-1:] or output.read().strip().splitlines()[:1] or [""]
            return {"error": f"{' '.join(command)[:200]} failed with exit code {process.returncode}: {said[0]}"}
        output.seek(0)
        return {"measured": measured, "output": output.read()}
