"""The environment that every process of this suite is started with. Imports no torch."""

import os
import re
import tempfile
from collections.abc import Sequence

from benchmarks.records.code_version import ROOT

# How long an OpenMP thread spins before it sleeps. ResNeXt-20 8x4d on digits, 2 threads on 2 cores: 45 ms a step alone, as with
# GNU's default; beside a second such process 0.3 s, where the default takes 3.1 s.
SPIN_COUNT = "10000"
# Characters: the name of a socket holds 107, of which multiprocessing adds 32 to its folder's.
LONGEST_TMPDIR = 70
# Another launcher's ranks and rendezvous must not be taken for ours.
FOREIGN = re.compile(
    r"^(MASTER_|RANK$|WORLD_SIZE$|LOCAL_|GROUP_|ROLE_|TORCHELASTIC_|TORCHRUN|PL_|SLURM_|SUBMITIT_|OMP_NUM_)"
)


def clean_environment(threads: int, gpus: Sequence[str] | None = None) -> dict[str, str]:
    """Return this process's environment without another launcher's variables, with ``threads`` and the visible ``gpus``."""
    environment = {key: value for key, value in os.environ.items() if not FOREIGN.match(key)}
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path and path != str(ROOT)]
    environment.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    environment |= {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *paths]),
        "PYTHONSAFEPATH": "1",  # else -c and -m import what lies in the working directory before what is on PYTHONPATH
        "PYTHONIOENCODING": "utf-8:backslashreplace",  # a log's, whatever the terminal's is
        "PYTHONUNBUFFERED": "1",
    }
    if len(tempfile.gettempdir()) > LONGEST_TMPDIR:
        short = [folder for folder in ("/tmp", "/var/tmp") if os.access(folder, os.W_OK)]
        environment |= {"TMPDIR": short[0]} if short else {}
    return environment if gpus is None else environment | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
