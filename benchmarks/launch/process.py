"""What every process that this suite starts is given: its place, its parent's death, and what it imports."""

import ctypes
import signal
import sys
from dataclasses import dataclass

# Imported once, before processes are forked that would each import them.
COMPILER = "torch._dynamo.config"  # by DistributedDataParallel, and to compile
AGENT = "benchmarks.launch.agent"  # by every trial
REMEMBER = "benchmarks.launch.remembered_code"  # last of all
PRELOADED = "COMPUTE_ACCURACY_PRELOADED"  # environment variable: what trials import beside these, with spaces between


@dataclass(frozen=True)
class Node:
    """The place of this machine in a trial over several.

    Attributes:
        rank: 0 keeps the record.
        count: machines.
        endpoint: ``host:port`` of the rendezvous, on machine 0.
        run_id: the same on all machines, another one for each start of the trial.
        address: by which the others reach this machine; None lets torch look it up.
        restarts: of all ranks after one was lost.
    """

    rank: int
    count: int
    endpoint: str
    run_id: str
    address: str | None = None
    restarts: int = 0


def can_fork() -> bool:
    """Whether processes can be forked safely from one that has imported PyTorch: on Linux."""
    return sys.platform == "linux"


def die_with_parent() -> None:
    """Asks Linux to send this process SIGTERM when its parent dies: a killed launcher leaves nothing behind."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
