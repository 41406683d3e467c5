"""The process of one rank of a run: its signals, its outcome, and the cause where it fails.

``python -m benchmarks.training.rank DIRECTORY`` reads ``config.yaml`` there.
"""

import gc
import json
import logging
import os
import signal
import sys
import time
import traceback
import warnings
from contextlib import suppress
from pathlib import Path

from benchmarks.records import files
from benchmarks.records.locks import RANKS, Lock
from benchmarks.records.record import Record, from_json
from benchmarks.training.environment import process_rank
from benchmarks.training.failures import describe, is_of_a_peer, report_failure
from benchmarks.training.open_run import OpenRun
from benchmarks.training.stopping import Interrupted, StopRequest, interruption_behind
from benchmarks.training.train import train

PEER_FIRST_S = 1.0  # so that the agent meets the rank that was killed before those that only lost it


def main(directory: Path) -> int:
    """Run this process's rank; return the exit code. Every outcome is recorded."""
    gc.freeze()  # what is imported stays
    config = files.read_config(directory)
    started = json.loads((directory / files.RECORD).read_text(encoding="utf-8"))
    if process_rank() == 0 and (started["status"] != "running" or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))):
        started = files.reopen(directory, None)
    stop = StopRequest(config["launch"]["collective_timeout_s"])
    run = OpenRun(directory, config, from_json(Record, started), stop)
    quiet()
    lock = Lock.share(directory / RANKS)  # as long as this process lives, no other start of the trial may write
    try:
        stop.listen()
        train(run)
    except (Exception, Interrupted) as raised:
        if signalled := interruption_behind(raised):
            return run.close("interrupted", f"interrupted by {signalled}", 128 + signal.SIGTERM)
        traceback.print_exc()
        error = (run.memory and run.memory.error) or raised
        reason = describe(error)
        report_failure(directory, reason, error)
        code = run.close("failed", reason, 1)
        if is_of_a_peer(error):
            with suppress(Interrupted):
                time.sleep(PEER_FIRST_S)
        return code
    finally:
        lock.release()
    return run.close("ok", None, 0)


def quiet() -> None:
    """Leave out warnings that do not apply here; the others go to the run's log."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")  # small images live in memory
    warnings.filterwarnings("ignore", ".*It is recommended to use `self.log.*sync_dist=True.*")  # already synchronised
    warnings.filterwarnings("ignore", ".*The `srun` command is available on your system but is not used.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec.*")  # meant for Lightning, whose code it is


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
