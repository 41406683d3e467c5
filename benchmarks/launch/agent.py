"""Runs the ranks of one trial on this machine: one by itself, several with torch's elastic agent, the engine of torchrun.

``python -m benchmarks.launch.agent DIRECTORY RANKS [NODE]``; NODE is a ``Node`` as JSON.
"""

import importlib
import json
import os
import signal
import sys
import uuid
from pathlib import Path
from typing import Any

from benchmarks import units
from benchmarks.launch.process import COMPILER, Node, die_with_parent
from benchmarks.records import files
from benchmarks.training.rank import main as run_rank

SHUTDOWN_S = 15  # from SIGTERM to SIGKILL of the ranks that are left when one has ended
MONITOR_S = 0.05  # a killed rank must be seen before its peers, which notice at once, have ended as well
# A machine that vanishes is noticed after keep_alive_interval x keep_alive_max_attempt seconds. An outage beyond read_timeout
# ends the agent of a machine that does not host the rendezvous.
RENDEZVOUS = {"join_timeout": 120, "last_call_timeout": 3, "read_timeout": 60}
RENDEZVOUS |= {"keep_alive_interval": 2, "keep_alive_max_attempt": 3}


def run_ranks(directory: Path, ranks: int, node: Node | None, fork: bool) -> int:
    """Runs ``ranks`` processes until all have ended or one has failed; returns the exit code.

    Args:
        directory: of the trial.
        ranks: on this machine.
        node: of a trial over several machines.
        fork: the ranks from this process, which must have computed nothing; else as fresh interpreters.
    """
    if ranks == 1 and node is None:
        return run_rank(directory)
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # A new store for each start of the ranks. In the agents' shared one they meet under their agent's number of restarts, which
    # differs between machines after an outage (torch 2.13): one then takes the other's old address.
    if node is not None:
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    config = LaunchConfig(
        min_nodes=node.count if node else 1,
        max_nodes=node.count if node else 1,
        nproc_per_node=ranks,
        run_id=node.run_id if node else uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint=node.endpoint if node else "127.0.0.1:0",
        rdzv_configs=RENDEZVOUS | {"is_host": node.rank == 0} if node else {},
        local_addr=node.address if node else "127.0.0.1",
        max_restarts=node.restarts if node else 0,
        monitor_interval=MONITOR_S,
        shutdown_timeout=SHUTDOWN_S,
        start_method="fork",
        # A request to save and stop ends the agent as well, or it would start the ranks again; it waits for them.
        signals_to_handle="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
    )
    try:
        if fork:
            importlib.import_module(COMPILER)  # once for all ranks
            elastic_launch(config, _rank)(directory)
        else:
            elastic_launch(config, sys.executable)("-m", "benchmarks.launch.agent", "--rank", str(directory))
    except ChildFailedError as error:
        return _failed(directory, error.failures)
    except SignalException as stop:
        return 128 + stop.sigval
    return 0


def _rank(directory: Path) -> None:
    die_with_parent()
    code = run_rank(directory)
    if code:
        sys.exit(code)


def _failed(directory: Path, failures: dict[int, Any]) -> int:
    """Names a killed rank as the cause: its peers only see a broken connection."""
    killed = {rank: failure.exitcode for rank, failure in failures.items() if failure.exitcode < 0}
    known = files.read_json(directory / files.FAILURE)
    if killed and (known is None or known.get("peer")):
        rank, code = next(iter(killed.items()))
        error = f"rank {rank} was {units.killed_by(-code)}"
        files.write_json(directory / files.FAILURE, {"error": error, "rank": rank, "known": False})
    codes = {failure.exitcode for failure in failures.values()}
    return 128 + signal.SIGTERM if 128 + signal.SIGTERM in codes else 1


def main(arguments: list[str]) -> int:
    """The command line; ``--rank DIRECTORY`` is one rank."""
    if arguments[0] == "--rank":
        _rank(Path(arguments[1]))
        return 0
    directory, ranks, *place = arguments
    node = Node(**json.loads(place[0])) if place else None
    return run_ranks(Path(directory), int(ranks), node, fork=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
