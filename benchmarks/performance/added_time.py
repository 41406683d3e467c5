"""What the suite adds to a training step, beside a hand-written loop in the same process.

``python -m benchmarks measure steps``. Ours is the code of every trial: trainer, module, tracker, checkpoints, datamodule. The
hand-written loop has the same network, weights, batches, optimiser, precision and layout, and nothing else; on a CPU both end
with the same weights, to the bit. Their steps are interleaved.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.performance.cases import CASES, EVALUATED, EVALUATION, INPUT, INPUT_STEPS, chosen
from benchmarks.performance.document import MeasuredTable, add_write_option, exit_code, in_one_thread, interval, named
from benchmarks.performance.interleaved import interleave, with_interval
from benchmarks.performance.throughput import label
from benchmarks.terminal import at_least

LIMIT, SHARE_LIMIT = 1.02, 0.02  # of a hand-written step: ours; of it, making the batch
TOLERANCE, SHARE_TOLERANCE = 0.02, 0.01  # that --check allows beyond the committed figures
SETTINGS = ("trainer.precision", "trainer.tf32", "trainer.channels_last", "trainer.compile")  # that both loops have
INPUT_BATCHES = (64, 128)
STEPS = MeasuredTable(
    "step_cost",
    "A training step beside a hand-written loop",
    {
        **named(network="s", batch="d", setting="s"),
        "ours_ms": ("ours, ms", ".1f"),
        "bare_ms": ("bare, ms", ".1f"),
        **interval("ratio", "ratio", ".3f"),
        "added_us": ("added, µs", ".0f"),
        "batch_share": ("batch made in", ".2%"),
        "rounds": ("rounds", "d"),
    },
    "The suite's own training (trainer, tracker, checkpoints, data module) and a bare loop written by hand with the same "
    "weights, batches, optimiser, precision and layout are interleaved in one process, a step each on a CPU, 4 on a GPU; a "
    "test shows on small networks that both end with the same weights, to the bit. Milliseconds are medians of the wall clock; "
    "ratio, what is added, and the share of the bare step in which its batch is made are medians over rounds, on a CPU of "
    "processor time in one thread, the ratio with its 95 % interval. Batches are small on a CPU, so that what is added weighs "
    "more than in real training; `resnet20_digits` is small enough to show what the framework costs by itself, and has no "
    "limit, nor has the detector, whose batches are crops of 60 masks an image; what is added to the others is less than "
    "their rounds differ. What is added to "
    "`resnet20_digits` is mostly calls in Python, which a profiler counts alike on any machine: 3,202 in a step, 2,093 in the "
    "bare loop's. Of the 1,109 between, 441 are functions of Lightning's loops and hooks, 37 the suite's and torchmetrics', "
    "the others what these call. Left out already, by means that Lightning offers or that a test watches: its profiler, the "
    "empty hooks of callbacks, its broadcast of signals, and the search for parameters where it notes a hook's name. What "
    "remains is its loop, and stays: one of our own would save at most what is added here, and would have to show precision, "
    "several processes, accumulation and resumption to the bit anew.",
    same=("network", "batch", "setting"),
)
BATCHES = MeasuredTable(
    INPUT,
    "Making batches of small images",
    {"batch": ("batch", "d"), **interval("images_per_s", "images/s on one core", ",.0f")},
    "Random images of 3x32x32, padded by 4, cropped, flipped and normalised by the training loader in one thread; from the "
    "median processor time of a batch, with its 95 % interval.",
)

EVALUATIONS = MeasuredTable(
    EVALUATION,
    "An evaluation beside the forward pass of its images",
    {
        **named(network="s", images=",d", setting="s", batch="d"),
        "ours_ms": ("ours, ms", ".1f"),
        "bare_ms": ("bare, ms", ".1f"),
        "bare_batch": ("bare batch", "d"),
        **interval("ratio", "ratio", ".3f"),
        "added_ms": ("added, ms", ".2f"),
        "rounds": ("rounds", "d"),
    },
    "An evaluation of the validation images within training (batches, forward pass, loss, metrics, the row of the history, "
    "progress) beside the forward pass alone of the same images, at the fastest of several batch sizes and in inference mode, "
    "in turns in one process. Medians over evaluations, the ratio with its 95 % interval, on a CPU of processor time in one "
    "thread. What is added hardly grows with the images, nor with the network's width. On `resnet20_digits` a profiler counts "
    "11,955 calls in Python in an evaluation, 807 of them in the forward pass. Most of the others are Lightning's, which walks "
    "over all layers three times to put them into evaluation and back. Metrics do not pass `LightningModule.log_dict`: it took "
    "1.2 ms for five names (median of 19 evaluations, one thread of an AMD EPYC, torch 2.13.0).",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``measure steps``."""
    parser.description = (
        "Time training steps of the suite and of a hand-written loop with the same network and batches, interleaved in one "
        "process, evaluations beside forward passes, and the making of batches. Limits of a step: "
        f"{LIMIT} of the hand-written one, {SHARE_LIMIT:.0%} of it for the batch. Exit code 1 where a step takes longer than "
        "the limit or, with --check, than committed, or where with --check there is neither."
    )
    parser.add_argument(
        "cases",
        nargs="*",
        metavar="CASE|KEY=VALUE",
        help=f"cases of {', '.join(CASES)}, {EVALUATION}, {INPUT}, default: all; values for run.py, of {', '.join(SETTINGS)}",
    )
    parser.add_argument(
        "--batch", type=at_least(1), help="images of a step; default: small on a CPU, the recipe's on a GPU"
    )
    parser.add_argument("--steps", type=at_least(1), help="default: by case")
    parser.add_argument("--check", action="store_true", help="compare with the committed ratios, on any machine")
    add_write_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the tables; return 0, or 1 where a step takes longer than the limit or, with ``--check``, than committed, or where
    with ``--check`` there is neither.

    Raises:
        ValueError: no such case, a value that both loops cannot have, or a network that cannot be trained here.
    """
    overrides = [word for word in arguments.cases if "=" in word]
    names = chosen([word for word in arguments.cases if "=" not in word], [*CASES, EVALUATION, INPUT], "case")
    if unknown := [word for word in overrides if word.partition("=")[0] not in SETTINGS]:
        raise ValueError(f"of run.py's values both loops take {', '.join(SETTINGS)}, got {unknown[0]}")

    from benchmarks.performance.evaluation_time import evaluation_row
    from benchmarks.performance.hand_written_loop import measure, summarise

    environment = in_one_thread()
    gpu = environment["device"] == "cuda"
    # Read before they are written anew.
    committed = STEPS.committed(environment["device"], environment["device_name"]) if arguments.check else None
    steps: list[dict[str, Any]] = []
    for name in (name for name in names if name in CASES):
        print(f"measuring {name}", file=sys.stderr)
        case = CASES[name]
        batch = arguments.batch or (None if gpu else case.batch)
        record, settings, trainer = measure(case, batch, arguments.steps or case.steps, overrides)
        row = {"network": name, "batch": record["parallel"]["global_batch_size"], "setting": label(settings)}
        steps.append(row | summarise(trainer.beside.rounds, not gpu))
    STEPS.report(arguments, steps, environment)
    BATCHES.report(arguments, [input_path(batch) for batch in INPUT_BATCHES if INPUT in names], environment)
    evaluated = EVALUATED if EVALUATION in names else {}
    rows = [evaluation_row(name, case, overrides) for name, case in evaluated.items()]
    EVALUATIONS.report(arguments, rows, environment)
    return exit_code(slower(steps, committed))


def input_path(batch: int) -> dict[str, Any]:
    """Return images a second of the training loader alone, CIFAR-sized, cropped, flipped and normalised, by processor time."""
    from benchmarks.performance.hand_written_loop import WARM_UP, prepare

    with tempfile.TemporaryDirectory() as root:
        _, datamodule = prepare(replace(CASES["resnext29_8x64d"], batch=batch), INPUT_STEPS, Path(root))
    batches = iter(datamodule.train_dataloader())
    count = INPUT_STEPS - WARM_UP
    rounds = interleave([lambda: next(batches)], time.thread_time, warm_up=WARM_UP, fewest=count, most=count)
    return {"batch": batch, **with_interval("images_per_s", [batch / seconds for [seconds] in rounds])}


def slower(rows: Sequence[Mapping[str, Any]], committed: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """Return what is slower than it should be, a line each.

    The bounds are the greatest committed figures with a tolerance; the limits, where nothing is committed for the same network,
    batch and setting. What has neither is named, unless ``committed`` is None: only limits are asked for. The lower end of a
    ratio's interval is compared: noise is no reason.
    """
    lines = []
    for row in rows:
        network, known = row["network"], [one for one in committed or () if STEPS.place(one) == STEPS.place(row)]
        if known:
            ratio = max(one["ratio"] for one in known) + TOLERANCE
            share = max(one["batch_share"] for one in known) + SHARE_TOLERANCE
        elif CASES[network].limited:
            ratio, share = LIMIT, SHARE_LIMIT
        else:
            if committed is not None:
                lines.append(f"nothing is committed for {network}, batch {row['batch']}, {row['setting']}")
            continue
        if row["ratio_low"] > ratio:
            lines.append(
                f"{network}: a step takes {row['ratio']:.3f} of a hand-written one ({row['ratio_low']:.3f} to "
                f"{row['ratio_high']:.3f}), {ratio:.3f} is allowed"
            )
        if row["batch_share"] > share:
            lines.append(
                f"{network}: making the batch takes {row['batch_share']:.2%} of a hand-written step, {share:.2%} is allowed"
            )
    return lines
