"""What a DenseNet keeps in memory for its backward pass, over its depth: ``python -m benchmarks memory``.

Each network plainly and with ``model.memory_efficient=true``: bytes kept, most memory of a process that trains it, time of a
step, and the convolutions that are computed again.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import terminal
from benchmarks.config.compose import expand
from benchmarks.config.trial import ConfigurationError, Trial
from benchmarks.performance.document import add_write_option, table, write_record
from benchmarks.performance.interleaved import in_turns
from benchmarks.performance.subprocesses import ask
from benchmarks.records.files import write_atomic
from benchmarks.records.hardware import on_gpu
from benchmarks.report.style import family_style
from benchmarks.report.view import Figure, View, render
from benchmarks.training.environment import environment
from benchmarks.training.options import synchronize
from benchmarks.training.tuned_settings import specification

KEY = "memory_efficient"
FORMS = {"plain": False, "efficient": True}
USUAL = ("model=densenet", "data=cifar10", "model.depth=40,70,100,130,160,190", "recipe.batch_size=8")
PLACE = ("logger=none", "cluster.threads_per_process=1")
TITLE = "What a DenseNet keeps for its backward pass"
COLUMNS = {
    "network": ("network", "s"),
    "batch": ("batch", "d"),
    "kept_plain_mib": ("kept, plain, MiB", ",.1f"),
    "kept_efficient_mib": ("kept, memory-efficient, MiB", ",.1f"),
    "peak_plain_mib": ("peak, plain, MiB", ",.0f"),
    "peak_efficient_mib": ("peak, memory-efficient, MiB", ",.0f"),
    "time_ratio": ("time of a step, ratio", ".2f"),
    "time_low": ("from", ".2f"),
    "time_high": ("to", ".2f"),
    "recomputed_macs": ("MACs computed again", ",d"),
}
NOTE = (
    "Kept: what a training forward pass holds for the backward pass, each piece of memory once, without parameters and "
    "buffers; a count, the same on every machine. Peak: the most that a process of its own used in training steps, above "
    "what it used before it built the network; on a GPU, by the allocator. Time: forward and backward, memory-efficient over "
    "plain, taking turns in one process; median, lowest and highest, on a CPU of processor time in one thread. "
)


def main(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks memory",
        description="Measure what DenseNets keep in memory for their backward pass, plainly and with "
        f"model.{KEY}=true.",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help=f"as for run.py -m; default: {' '.join(USUAL)}",
    )
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="turns of the time ratio; default: 7")
    parser.add_argument("--page", type=Path, metavar="FILE", help="draw memory over depth: an HTML file")
    add_write_option(parser)
    arguments = parser.parse_intermixed_args(argv)
    torch.set_num_threads(1)
    rows = []
    try:
        trials = expand([*(arguments.overrides or USUAL), *PLACE], multirun=True)
        for trial in trials:
            if not isinstance(trial, Trial):
                raise ConfigurationError(f"{trial.label}: {trial.error}")
            if KEY not in trial.config["model"]:
                raise ConfigurationError(f"{trial.config['name']} has no model.{KEY}, model=densenet has one")
            print(f"measuring {trial.config['name']}", file=sys.stderr)
            rows.append(measure(trial.config, arguments.repeats))
        if arguments.page:
            write_atomic(arguments.page, render(view(rows)))
    except (ValueError, OSError) as error:
        print(f"python -m benchmarks memory: {error}", file=sys.stderr)
        return 2
    terminal.console().print(table(COLUMNS, rows))
    print(growth(rows))
    if arguments.write:
        where = environment(_device(trials[0].config))  # type: ignore[union-attr]
        command = " ".join(["python -m benchmarks memory", *arguments.overrides, f"--repeats {arguments.repeats}"])
        write_record("memory", where, command, TITLE, COLUMNS, rows, NOTE + growth(rows))
    return 0


def measure(config: dict[str, Any], repeats: int) -> dict[str, Any]:
    """A row: one network in both forms.

    Raises:
        ValueError: a step failed, as for want of memory.
    """
    step = specification(config)
    models = {form: config["model"] | {KEY: value} for form, value in FORMS.items()}
    device = _device(config)
    images = torch.randn(step["batch"], *step["image"], device=device)
    nets = {form: instantiate(model).to(device).train() for form, model in models.items()}
    low, middle, high = time_ratio(nets["efficient"], nets["plain"], images, repeats)
    kept = {form: kept_bytes(net, images) for form, net in nets.items()}
    row = {"network": config["name"], "depth": config["model"]["depth"], "batch": step["batch"]}
    row |= {f"kept_{form}_mib": kept[form] / 2**20 for form in FORMS}
    for form, model in models.items():
        row[f"peak_{form}_mib"] = (
            ask("performance.step_time", step | {"model": model}, step["threads"])["memory_bytes"] / 2**20
        )
    macs = {form: training_macs(model, step["image"]) for form, model in models.items()}
    return row | {
        "time_ratio": middle,
        "time_low": low,
        "time_high": high,
        "recomputed_macs": macs["efficient"] - macs["plain"],
    }


def kept_bytes(net: nn.Module, images: Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass, each piece of memory once, without the network's own tensors."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        net(images)
    return sum(storage.nbytes() for storage in kept.values())


def training_macs(model: dict[str, Any], image: Sequence[int]) -> int:
    """Multiply-adds that a training step does for one image, all repetitions included: right for ungrouped convolutions."""
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), counter:
        instantiate(model).train()(torch.empty(2, *image)).sum().backward()  # batch statistics want two images
    return int(counter.get_total_flops()) // 4


def time_ratio(net: nn.Module, other: nn.Module, images: Tensor, repeats: int) -> tuple[float, float, float]:
    """Lowest, median and highest ratio of the times of forward and backward, taking turns; the first turn is left out."""

    def step(one: nn.Module) -> None:
        one(images).sum().backward()
        synchronize(images.device)

    clock = time.perf_counter if images.is_cuda else time.thread_time
    turns = in_turns(partial(step, net), partial(step, other), clock, warm_up=1, fewest=repeats, most=repeats)
    ratios = [own / beside for own, beside in turns]
    return min(ratios), statistics.median(ratios), max(ratios)


def exponents(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Powers of the depth with which what is kept grows, by form, from the two deepest networks."""
    shallow, deep = sorted(rows, key=lambda row: row["depth"])[-2:]
    scale = math.log(deep["depth"] / shallow["depth"])
    return {form: math.log(deep[f"kept_{form}_mib"] / shallow[f"kept_{form}_mib"]) / scale for form in FORMS}


def growth(rows: Sequence[dict[str, Any]]) -> str:
    """How what is kept grows with depth, in words; empty for one depth."""
    if len({row["depth"] for row in rows}) < 2:
        return ""
    found = exponents(rows)
    return (
        "Between the two deepest networks what is kept grows as the depth to the power of "
        f"{found['plain']:.2f} plain and {found['efficient']:.2f} memory-efficient."
    )


def view(rows: Sequence[dict[str, Any]]) -> View:
    """Memory over depth.

    Raises:
        ValueError: one depth alone, or other things differ than the depth.
    """
    depths = [row["depth"] for row in rows]
    if len(set(depths)) < len(rows) or len(rows) < 2 or len({row["batch"] for row in rows}) > 1:
        raise ValueError("--page draws over depth: give several, as model.depth=40,70,100, and nothing else twice")
    powers, style = exponents(rows), family_style("densenet")
    traces = []
    for quantity, word, dash in (("kept", "kept for the backward pass", "solid"), ("peak", "peak of a process", "dot")):
        for form, name, colour in (("plain", "plain", "--soft"), ("efficient", "memory-efficient", style.colour)):
            values = [row[f"{quantity}_{form}_mib"] for row in rows]
            traces.append(
                {
                    "name": f"{name}, {word}" + (f" ∝ L<sup>{powers[form]:.2f}</sup>" if quantity == "kept" else ""),
                    "mode": "lines+markers",
                    "x": depths,
                    "y": values,
                    "line": {"color": colour, "width": 2, "dash": dash},
                    "marker": {"color": colour, "size": 8, "symbol": style.symbol},
                    "hovertext": [
                        f"<b>{row['network']}</b><br>{value:,.1f} MiB" for row, value in zip(rows, values, strict=True)
                    ],
                    "hoverinfo": "text",
                }
            )
    layout = {
        "margin": {"l": 62, "r": 14, "t": 24, "b": 48},
        "legend": {"x": 0.02, "y": 0.98, "xanchor": "left", "yanchor": "top", "bgcolor": "rgba(0,0,0,0)"},
        "xaxis": {"title": {"text": "depth L"}, "tickvals": depths},
        "yaxis": {"title": {"text": "MiB"}, "rangemode": "tozero"},
    }
    low, high = (pick(row["time_ratio"] for row in rows) for pick in (min, max))
    again = max(row["recomputed_macs"] for row in rows)
    caption = (
        f"Batches of {rows[0]['batch']}. The exponents are those between the two deepest networks. Memory-efficient, a step "
        f"takes {low:.2f} to {high:.2f} times as long here, and {f'{again:,}' if again else 'none'} of its MACs are done twice."
    )
    named = f"{rows[0]['network']} to {rows[-1]['network']}"
    return View(
        TITLE,
        "Every layer reads all before it. Plainly it keeps a concatenated and a normalised copy of them: quadratic in the "
        f"depth. With model.{KEY}=true it makes both again in the backward pass: linear, with the same results.",
        [Figure(named, caption, [{"traces": traces, "layout": layout}], height=420, width=560)],
    )


def _device(config: dict[str, Any]) -> torch.device:
    return torch.device("cuda" if on_gpu(config) else "cpu")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
