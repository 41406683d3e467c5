"""What each switch of training costs or saves: ``python -m benchmarks switch_cost``.

A training step with the switch and one without take turns in a process of their own; memory is that of two more.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from benchmarks import terminal
from benchmarks.config.compose import expand
from benchmarks.config.trial import ConfigurationError, Trial
from benchmarks.launch.checks import refusal
from benchmarks.performance.document import add_to_record, add_write_option, table
from benchmarks.performance.interleaved import in_turns, median_interval
from benchmarks.performance.step_time import Steps
from benchmarks.performance.subprocesses import ask
from benchmarks.training.environment import environment
from benchmarks.training.tuned_settings import specification

SMALL = {  # on a CPU, where the recipe's batch would take minutes
    "resnext": ("model=resnext", "data=cifar10", "recipe.batch_size=4"),
    "densenet": ("model=densenet", "data=cifar10", "recipe.batch_size=8"),
    "unet": ("model=unet", "data=touching_cells", "model.base_channels=32", "recipe.batch_size=2"),
}
SWITCHES = {  # what it changes in the results
    "trainer.channels_last=true": "rounding",
    "trainer.compile=true": "rounding",
    "trainer.tf32=true": "10 bits of mantissa in products",
    "trainer.precision=bf16-mixed": "7 bits of mantissa in products",
    "trainer.accumulate_grad_batches=2": "batch norm sees the parts",
    "trainer.gradient_checkpointing=true": "none",
    "model.memory_efficient=true": "none",
    "trainer.ema_decay=0.999": "the average is evaluated",
}
PLACE = ("logger=none", "cluster.threads_per_process=1")
MEASURED_S = 15.0
FEWEST, MOST, WARM_UP = 7, 200, 2  # turns
TITLE = "What each switch costs or saves"
COLUMNS = {
    "network": ("network", "s"),
    "batch": ("batch", "d"),
    "switch": ("switch", "s"),
    "time_ratio": ("time of a step, ratio", ".2f"),
    "time_low": ("from", ".2f"),
    "time_high": ("to", ".2f"),
    "memory_plain_mib": ("memory without, MiB", ",.0f"),
    "memory_mib": ("with, MiB", ",.0f"),
    "turns": ("turns", "d"),
    "results": ("changes in the results", "s"),
}
NOTE = (
    "Training steps (forward, backward, optimiser, average) on random images with the switch and without, in turns in one "
    "process: the ratio's median with its 95 % interval, on a CPU of processor time in one thread. Memory is the most that a "
    "process of its own used in training steps, above what it used before it built the network; on a GPU, by the allocator. "
    "Which of them help is a matter of the machine: `python -m benchmarks switch_cost` measures it on yours, `tune` chooses."
)


def main(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks switch_cost",
        description="Time and memory of a training step with each switch, beside one without, in turns. Without arguments for "
        f"{', '.join(SMALL)} with small batches.",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help=f"as for run.py, one network: model=… data=…; of {', '.join(SWITCHES)} some, default: all",
    )
    add_write_option(parser)
    arguments = parser.parse_intermixed_args(argv)
    chosen = [switch for switch in SWITCHES if switch in arguments.overrides] or list(SWITCHES)
    given = tuple(override for override in arguments.overrides if override not in SWITCHES)
    networks = [given] if given else list(SMALL.values())
    rows: list[dict[str, Any]] = []
    left_out: dict[str, None] = {}
    try:
        plans = [(overrides, switch) for overrides in networks for switch in chosen]
        for overrides, switch in track(plans, "switch_cost", console=Console(stderr=True), transient=True):
            row = _row(overrides, switch)
            if isinstance(row, str):
                left_out |= {row: None}
            else:
                rows.append(row)
    except ValueError as error:
        print(f"python -m benchmarks switch_cost: {error}", file=sys.stderr)
        return 2
    terminal.console().print(table(COLUMNS, rows))
    for line in left_out:
        print(f"left out   {line}")
    if arguments.write:
        command = " ".join(["python -m benchmarks switch_cost", *argv])
        where = environment(torch.device("cuda" if torch.cuda.is_available() else "cpu")) | {"threads": 1}
        add_to_record("switch_cost", where, command, TITLE, COLUMNS, rows, NOTE, ("network", "batch", "switch"))
    return 0


def compare(pair: Sequence[Mapping[str, Any]]) -> int:
    """Prints the ratios of the second specification's steps to the first's, in turns, as JSON; returns the exit code."""
    torch.set_num_threads(pair[0]["threads"])
    clock = time.perf_counter if pair[0]["gpu"] else time.thread_time
    device = torch.device("cuda" if pair[0]["gpu"] else "cpu")
    plain, other = (Steps(one, device).of(one) for one in pair)
    turns = in_turns(plain, other, clock, warm_up=WARM_UP, fewest=FEWEST, most=MOST, seconds=MEASURED_S)
    print(json.dumps({"ratios": [with_it / without for without, with_it in turns]}))
    return 0


def _row(overrides: Sequence[str], switch: str) -> dict[str, Any] | str:
    """The figures of a switch, or in a line why this machine or network has it not.

    Raises:
        ValueError: no such network.
    """
    plain = _trial([*overrides, *PLACE])
    name, kind = plain.config["name"], switch.partition("=")[0].removeprefix("model.")
    if switch.startswith("model.") and kind not in plain.config["model"]:
        return f"{switch}: not for {name}"
    try:
        other = _trial([*overrides, *PLACE, switch])
        pair = [specification(trial.config) for trial in (plain, other)]
        ratios = ask("performance.option_cost", pair, 1)["ratios"]
        memory = [ask("performance.step_time", one, 1)["memory_bytes"] / 2**20 for one in pair]
    except ValueError as error:
        return f"{switch}, {name}: {str(error).removeprefix('ValueError: ')}"
    low, ratio, high = median_interval(ratios)
    return {
        "network": name,
        "batch": pair[0]["batch"],
        "switch": switch,
        "time_ratio": ratio,
        "time_low": low,
        "time_high": high,
        "memory_plain_mib": memory[0],
        "memory_mib": memory[1],
        "turns": len(ratios),
        "results": SWITCHES[switch],
    }


def _trial(overrides: Sequence[str]) -> Trial:
    [trial] = expand(overrides, multirun=False)
    if not isinstance(trial, Trial):
        raise ConfigurationError(trial.error)
    if problem := refusal(trial):
        raise ConfigurationError(problem)
    return trial


if __name__ == "__main__":
    sys.exit(compare(json.loads(sys.argv[1])))
