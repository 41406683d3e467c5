"""What a DenseNet keeps in memory for its backward pass, over its depth: ``python -m benchmarks measure options --kept``.

Each network plainly and with ``model.memory_efficient=true``: bytes kept, most memory of a process that trains it, time of a
step, and the convolutions that are computed again.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.config.compose import expand_all
from benchmarks.config.trial import ConfigurationError
from benchmarks.performance.document import MeasuredTable, interval, named, this_machine
from benchmarks.performance.subprocesses import compare_steps
from benchmarks.records.files import write_atomic
from benchmarks.records.hardware import on_gpu
from benchmarks.report.figures import figure, points
from benchmarks.report.style import family_look
from benchmarks.report.view import Figure, View, render
from benchmarks.training.tuned_settings import specification

if TYPE_CHECKING:
    from torch import Tensor, nn

KEY = "memory_efficient"
FORMS = {"plain": False, "efficient": True}
USUAL = ("model=densenet", "data=cifar10", "model.depth=40,70,100,130,160,190", "recipe.batch_size=8")
ONE_THREAD = ("logger=none", "cluster.threads_per_process=1")
TABLE = MeasuredTable(
    "memory",
    "What a DenseNet keeps for its backward pass",
    {
        **named(network="s", batch="d"),
        "kept_plain_mib": ("kept, plain, MiB", ",.1f"),
        "kept_efficient_mib": ("kept, memory-efficient, MiB", ",.1f"),
        "peak_plain_mib": ("peak, plain, MiB", ",.0f"),
        "peak_efficient_mib": ("peak, memory-efficient, MiB", ",.0f"),
        **interval("time_ratio", "time of a step, ratio", ".2f"),
        "recomputed_macs": ("MACs computed again", ",d"),
    },
    "Kept: what a training forward pass holds for the backward pass, each piece of memory once, without parameters and "
    "buffers; a count, the same on every machine. Peak: the most that a process of its own used in training steps, above "
    "what it used before it built the network; on a GPU, by the allocator. Time: a training step, memory-efficient over "
    "plain, interleaved in one process; median with its 95 % interval, on a CPU of processor time in one thread. ",
)


def report(arguments: argparse.Namespace) -> None:
    """Measure, print and draw, as ``measure options --kept`` is asked to; by default the networks of ``USUAL``.

    Raises:
        ValueError: a network without both forms, or a step that failed, as for want of memory.
        OSError: the page cannot be written.
    """
    import torch

    torch.set_num_threads(1)
    rows = []
    trials = expand_all([*(arguments.overrides or USUAL), *ONE_THREAD])
    for trial in trials:
        if KEY not in trial.config["model"]:
            raise ConfigurationError(f"{trial.config['name']} has no model.{KEY}, model=densenet has one")
        print(f"measuring {trial.config['name']}", file=sys.stderr)
        rows.append(measure(trial.config, arguments.repeats))
    if arguments.page:
        write_atomic(arguments.page, render(view(rows)))
    device = "cuda" if on_gpu(trials[0].config) else "cpu"
    TABLE.report(arguments, rows, this_machine(device), growth(rows))
    print(growth(rows))


def measure(config: dict[str, Any], repeats: int | None) -> dict[str, Any]:
    """Return the row of one network in both forms; the comparison of times has ``repeats`` rounds.

    Raises:
        ValueError: a step failed, as for want of memory.
    """
    import torch
    from hydra.utils import instantiate

    step = specification(config)
    models = {form: config["model"] | {KEY: value} for form, value in FORMS.items()}
    compared = compare_steps(step | {"model": models["plain"]}, step | {"model": models["efficient"]}, repeats)
    device = torch.device("cuda" if step["gpu"] else "cpu")
    images = torch.randn(step["batch"], *step["image"], device=device)
    row = {"network": config["name"], "depth": config["model"]["depth"], "batch": step["batch"]}
    for form, model in models.items():
        row[f"kept_{form}_mib"] = kept_bytes(instantiate(model).to(device).train(), images) / 2**20
    macs = {form: training_macs(model, step["image"]) for form, model in models.items()}
    row |= {"peak_plain_mib": compared["memory_plain_mib"], "peak_efficient_mib": compared["memory_mib"]}
    row |= {key: value for key, value in compared.items() if key.startswith("time_ratio")}
    return row | {"recomputed_macs": macs["efficient"] - macs["plain"]}


def kept_bytes(net: "nn.Module", images: "Tensor") -> int:
    """Return bytes that a forward pass keeps for the backward pass, each piece of memory once, without the network's own."""
    import torch

    own = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    storages: dict[int, torch.UntypedStorage] = {}

    def note(tensor: "Tensor") -> "Tensor":
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        net(images)
    return sum(storage.nbytes() for storage in storages.values())


def training_macs(model: dict[str, Any], image: Sequence[int]) -> int:
    """Return multiply-adds of a training step for one image, all repetitions included; right for ungrouped convolutions."""
    import torch
    from hydra.utils import instantiate
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.device("meta"), counter:
        instantiate(model).train()(torch.empty(2, *image)).sum().backward()  # batch statistics want two images
    return int(counter.get_total_flops()) // 4


def exponents(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return powers of the depth with which what is kept grows, by form, from the two deepest networks."""
    shallow, deep = sorted(rows, key=lambda row: row["depth"])[-2:]
    scale = math.log(deep["depth"] / shallow["depth"])
    return {form: math.log(deep[f"kept_{form}_mib"] / shallow[f"kept_{form}_mib"]) / scale for form in FORMS}


def growth(rows: Sequence[dict[str, Any]]) -> str:
    """Say how what is kept grows with depth, in words; empty for one depth, and where a depth is there twice."""
    if len({row["depth"] for row in rows}) < max(2, len(rows)):
        return ""
    powers = exponents(rows)
    return (
        "Between the two deepest networks what is kept grows as the depth to the power of "
        f"{powers['plain']:.2f} plain and {powers['efficient']:.2f} memory-efficient."
    )


def view(rows: Sequence[dict[str, Any]]) -> View:
    """Draw memory over depth; raise ValueError for one depth alone, and where other things differ than the depth."""
    depths = [row["depth"] for row in rows]
    if len(set(depths)) < len(rows) or len(rows) < 2 or len({row["batch"] for row in rows}) > 1:
        raise ValueError("--page draws over depth: give several, as model.depth=40,70,100, and nothing else twice")
    powers, look = exponents(rows), family_look("densenet")
    traces = []
    for key, word, dash in (("kept", "kept for the backward pass", "solid"), ("peak", "peak of a process", "dot")):
        for form, name, colour in (("plain", "plain", "--soft"), ("efficient", "memory-efficient", look.colour)):
            values = [row[f"{key}_{form}_mib"] for row in rows]
            power = f" ∝ L<sup>{powers[form]:.2f}</sup>" if key == "kept" else ""
            texts = [f"<b>{row['network']}</b><br>{value:,.1f} MiB" for row, value in zip(rows, values, strict=True)]
            marks = {"line": {"color": colour, "width": 2, "dash": dash}, "marker": {"color": colour, "size": 8}}
            named = {"name": f"{name}, {word}{power}", "mode": "lines+markers", "hovertext": texts}
            traces.append(points(depths, values, look, **marks) | named)
    drawn = figure(
        traces,
        {"title": "depth L", "tickvals": depths},
        {"title": "MiB", "rangemode": "tozero"},
        legend={"x": 0.02, "y": 0.98, "xanchor": "left", "yanchor": "top", "bgcolor": "rgba(0,0,0,0)"},
    )
    low, high = (pick(row["time_ratio"] for row in rows) for pick in (min, max))
    again = max(row["recomputed_macs"] for row in rows)
    caption = (
        f"Batches of {rows[0]['batch']}. The exponents are those between the two deepest networks. Memory-efficient, a step "
        f"takes {low:.2f} to {high:.2f} times as long here, and {f'{again:,}' if again else 'none'} of its MACs are done twice."
    )
    return View(
        TABLE.title,
        "Every layer reads all before it. Plainly it keeps a concatenated and a normalised copy of them: quadratic in the "
        f"depth. With model.{KEY}=true it makes both again in the backward pass: linear, with the same results.",
        [Figure(f"{rows[0]['network']} to {rows[-1]['network']}", caption, [drawn], height=420, width=560)],
    )
