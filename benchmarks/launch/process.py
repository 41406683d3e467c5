"""What every process that this suite starts is given: its environment, its place, its parent's death."""

import ctypes
import os
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.records.code_version import ROOT

# How long an OpenMP thread spins before it sleeps. ResNeXt-20 8x4d on digits, 2 threads on 2 cores: 45 ms a step alone, as with
# GNU's default; beside a second such process 0.3 s, where the default takes 3.1 s.
SPIN_COUNT = "10000"
# Characters: the name of a socket holds 107, of which multiprocessing adds 32 to its folder's.
LONGEST_TMPDIR = 70
# Imported once, before processes are forked that would each import them.
META_CHECKS = "torch.fx.experimental.symbolic_shapes"  # at the first count of a network
COMPILER = "torch._dynamo.config"  # by DistributedDataParallel, and to compile
SHARED = ("benchmarks.launch.agent", META_CHECKS)  # by every trial
REMEMBER = "benchmarks.launch.remembered_code"  # last of all
PRELOADED = "COMPUTE_ACCURACY_PRELOADED"  # environment variable: what trials import beside these, with spaces between
# Another launcher's ranks and rendezvous must not be taken for ours.
FOREIGN = re.compile(
    r"^(MASTER_|RANK$|WORLD_SIZE$|LOCAL_|GROUP_|ROLE_|TORCHELASTIC_|TORCHRUN|PL_|SLURM_|SUBMITIT_|OMP_NUM_)"
)


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


def clean_environment(threads: int, gpus: Sequence[str] | None = None) -> dict[str, str]:
    """Return this process's environment without another launcher's variables, with ``threads`` and the visible ``gpus``."""
    environment = {key: value for key, value in os.environ.items() if not FOREIGN.match(key)}
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path and path != str(ROOT)]
    environment.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    environment |= {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *paths]),
        "PYTHONIOENCODING": "utf-8:backslashreplace",  # a log's, whatever the terminal's is
        "PYTHONUNBUFFERED": "1",
    }
    if len(tempfile.gettempdir()) > LONGEST_TMPDIR:
        short = [folder for folder in ("/tmp", "/var/tmp") if os.access(folder, os.W_OK)]
        environment |= {"TMPDIR": short[0]} if short else {}
    return environment if gpus is None else environment | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
