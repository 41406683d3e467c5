"""Write the run folders of a large sweep from a few real ones.

In a process of its own: what holds thousands of configurations would count as memory of each process that it starts.
"""

import json
import shutil
from typing import Any

from benchmarks.config.compose import expand_all
from benchmarks.config.trial import config_hash
from benchmarks.records.files import CONFIG, RECORD, read_json, write_json
from benchmarks.records.runs import load_runs


def main(argument: dict[str, Any]) -> dict[str, int]:
    """Write a finished run for each trial of a sweep; return how many ``runs``.

    Args:
        argument: ``overrides`` of the sweep; ``runs``, a folder of finished ones, whose results are taken in turns.
    """
    runs, _ = load_runs(argument["runs"])
    macs = min(run.macs or 1 for run in runs)
    trials = expand_all(argument["overrides"])
    for index, trial in enumerate(trials):
        run, config = runs[index % len(runs)], trial.config
        shutil.copytree(run.directory, trial.directory, ignore=shutil.ignore_patterns("checkpoints", RECORD, CONFIG))
        # Costs that rise with the width, as those of real networks do: equal ones would make a front of one point.
        scale = (config["model"]["base_channels"] / 2) ** 2 * macs / (run.macs or 1)
        record = read_json(run.directory / RECORD) or {}
        record |= {"name": config["name"], "seed": config["seed"], "overrides": trial.overrides}
        record |= {"recipe": config["recipe"]["name"], "config_hash": config_hash(config)}
        for block, key in (("complexity", "params"), ("complexity", "macs"), ("compute", "train_flops")):
            record[block][key] = int(record[block][key] * scale)
        write_json(trial.directory / RECORD, record)
        # JSON is YAML, and takes a tenth of the time to write.
        (trial.directory / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
    return {"runs": len(trials)}
