"""What each training option costs or saves: ``python -m benchmarks measure options``.

Training steps with the option and without are interleaved in a process of their own; memory is that of two more.
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.performance import kept_memory
from benchmarks.performance.document import MeasuredTable, add_write_option, interval, named, this_machine
from benchmarks.performance.kept_memory import ONE_THREAD
from benchmarks.performance.subprocesses import compare_steps
from benchmarks.performance.throughput import trainable
from benchmarks.terminal import add_overrides, at_least, with_bar
from benchmarks.training.tuned_settings import specification

SMALL = {  # on a CPU, where the recipe's batch would take minutes
    "resnext": ("model=resnext", "data=cifar10", "recipe.batch_size=4"),
    "densenet": ("model=densenet", "data=cifar10", "recipe.batch_size=8"),
    "unet": ("model=unet", "data=touching_cells", "model.base_channels=32", "recipe.batch_size=2"),
}
OPTIONS = {  # what it changes in the results
    "trainer.channels_last=true": "rounding",
    "trainer.compile=true": "rounding",
    "trainer.cuda_graph=true": "none",
    "trainer.tf32=true": "10 bits of mantissa in products",
    "trainer.precision=bf16-mixed": "7 bits of mantissa in products",
    "trainer.accumulate_grad_batches=2": "batch norm sees the parts",
    "trainer.gradient_checkpointing=true": "none",
    "model.memory_efficient=true": "none",
    "trainer.ema_decay=0.999": "the average is evaluated",
}
PLAIN = (*ONE_THREAD, "trainer.channels_last=false")
TABLE = MeasuredTable(
    "switch_cost",
    "What each training option costs or saves",
    {
        **named(network="s", batch="d"),
        "option": ("training option", "s"),
        **interval("time_ratio", "time of a step, ratio", ".2f"),
        "memory_plain_mib": ("memory without, MiB", ",.0f"),
        "memory_mib": ("with, MiB", ",.0f"),
        "rounds": ("rounds", "d"),
        "results": ("changes in the results", "s"),
    },
    "Training steps (forward, backward, optimiser, average) on random images with the option and without, interleaved in one "
    "process: the ratio's median with its 95 % interval, on a CPU of processor time in one thread. Memory is the most that a "
    "process of its own used in training steps, above what it used before it built the network; on a GPU, by the allocator. "
    "Which of them help is a matter of the machine: `python -m benchmarks measure options` measures it on yours, `tune` "
    "chooses.",
    same=("network", "batch", "option"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``measure options``."""
    parser.description = (
        "Time and memory of a training step with each training option, beside one without, interleaved. Without arguments for "
        f"{', '.join(SMALL)} with small batches. With --kept: what DenseNets keep in memory for their backward pass over their "
        f"depth, plainly and with model.{kept_memory.KEY}=true."
    )
    add_overrides(
        parser,
        f", one network: model=… data=…; of {', '.join(OPTIONS)} some, default: all; with --kept as for run.py -m, default: "
        f"{' '.join(kept_memory.USUAL)}",
    )
    parser.add_argument("--kept", action="store_true", help="measure what DenseNets keep for their backward pass")
    parser.add_argument("--page", type=Path, metavar="FILE", help="with --kept: draw memory over depth, an HTML file")
    parser.add_argument("--repeats", type=at_least(1), metavar="N", help="of the comparison; default: as time allows")
    add_write_option(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print the table; raise ValueError where there is no such network."""
    if arguments.kept:
        kept_memory.report(arguments)
        return
    if arguments.page:
        raise ValueError("--page draws what --kept measures")
    chosen = [option for option in OPTIONS if option in arguments.overrides] or list(OPTIONS)
    network = tuple(override for override in arguments.overrides if override not in OPTIONS)
    networks = [network] if network else list(SMALL.values())
    rows: list[dict[str, Any]] = []
    left_out: dict[str, None] = {}
    pairs = [(overrides, option) for overrides in networks for option in chosen]
    environment = this_machine() | {"threads": 1}
    try:
        for overrides, option in with_bar(pairs, "options"):
            plain = trainable([*overrides, *PLAIN])
            name, key = plain.config["name"], option.partition("=")[0].removeprefix("model.")
            if option.startswith("model.") and key not in plain.config["model"]:
                left_out[f"{option}: not for {name}"] = None
                continue
            try:
                step = specification(plain.config)
                with_option = specification(trainable([*overrides, *PLAIN, option]).config)
                row = compare_steps(step, with_option, arguments.repeats)
            except ValueError as error:
                left_out[f"{option}, {name}: {str(error).removeprefix('ValueError: ')}"] = None
                continue
            rows.append({"network": name, "batch": step["batch"], "option": option, "results": OPTIONS[option]} | row)
    finally:  # what is interrupted keeps what it has measured
        TABLE.report(arguments, rows, environment)
        for line in left_out:
            print(f"left out   {line}")
