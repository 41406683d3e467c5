"""Latency, images per second and peak memory of a network: ``python -m benchmarks throughput model=densenet data=cifar10``."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import measuring, terminal, tuning
from benchmarks.configuration import Cell, ConfigurationError, expand
from benchmarks.forecasts import quantity
from benchmarks.launch import lack, on_gpu, refusal
from benchmarks.record import now, read_json, write_json

KEPT = "throughput.json"
PASSES = ("latency", "forward", "training")


def main(argv: Sequence[str]) -> int:
    """Prints a table per network and keeps the figures. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks throughput",
        description="Latency (one image), images per second forward and in training at the recipe's batch, with warm-up and "
        "synchronisation, each in a process of its own; median and quartiles, activations, peak memory.",
        epilog="The trainer's switches apply: trainer.compile=true, trainer.channels_last=true, trainer.precision=bf16-mixed, "
        "recipe.batch_size=… The figures are kept in OUTPUT_ROOT/throughput.json by network, settings and machine.",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for run.py; several values make a sweep")
    parser.add_argument("--json", action="store_true", help="the figures as JSON, a list")
    arguments = parser.parse_args(argv)
    try:
        cells = expand(arguments.overrides, multirun=True)
        found = [_measure(cell) for cell in cells if isinstance(cell, Cell)]
        if impossible := [cell for cell in cells if not isinstance(cell, Cell)]:
            raise ConfigurationError(f"{impossible[0].label}: {impossible[0].error}")
    except OSError as error:
        print(f"python -m benchmarks throughput: cannot write to {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"python -m benchmarks throughput: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps(found, indent=1))
        return 0
    for one in found:
        _print(terminal.console(), one)
    return 0


def count(config: dict[str, Any]) -> dict[str, int]:
    """Parameters, activations, MACs and FLOPs of a configuration's network for one image.

    Raises:
        ValueError: there is no such network, or it does not take such images.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    from benchmarks.complexity import measure

    data = config["data"]
    try:
        net = instantiate(config["model"])
    except InstantiationException as error:
        raise ValueError(error.__cause__) from error
    net.check_image_size(*data["image_size"])
    cost = measure(net, (data["in_channels"], *data["image_size"])).as_dict()
    return {key: cost[key] for key in ("params", "activations", "macs", "flops", "train_flops_per_sample")}


def _measure(cell: Cell) -> dict[str, Any]:
    config = cell.config
    if problem := refusal(cell) or lack(cell):
        raise ConfigurationError(problem)
    base = measuring.specification(config)
    cost = count(config)
    machine = measuring.ask("switches", int(on_gpu(config)), base["threads"])["hardware"]
    passes: dict[str, Any] = {}
    for name in track(PASSES, config["name"], console=Console(stderr=True), transient=True):
        batch = 1 if name == "latency" else base["batch"]
        asked = {**base, "batch": batch, "forward": name != "training"}
        one = measuring.ask("step_time", asked, base["threads"])
        passes[name] = {
            "batch": batch,
            "median_s": one["step_s"],
            "quartiles_s": one["quartiles_s"],
            "steps": one["steps"],
            "images_per_s": batch / one["step_s"],
            "peak_memory_bytes": one["memory_bytes"],
        }
    found = {
        "network": config["name"],
        "data": config["data"]["name"],
        "image": base["image"],
        "precision": base["precision"],
        "switches": base["switches"],
        "threads": base["threads"],
        **cost,
        **passes,
        "hardware": machine,
        "made": now(),
    }
    path = Path(config["output_root"], KEPT)
    path.parent.mkdir(parents=True, exist_ok=True)
    key = " ".join([tuning.key_of(base), json.dumps([base["precision"], base["switches"], machine], sort_keys=True)])
    write_json(path, (read_json(path) or {}) | {key: found})
    return found


def _print(console: Console, found: dict[str, Any]) -> None:
    image = "×".join(map(str, found["image"]))
    said = ", ".join(f"{name}={json.dumps(value)}" for name, value in found["switches"].items())
    where = found["hardware"]["device_name"]
    title = f"{found['network']}, images of {image}, {', '.join(filter(None, (found['precision'], said)))}, {where}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for header in ("", "batch", "ms, median", "quartiles", "steps", "images/s", "peak memory"):
        table.add_column(header, justify="left" if not header else "right", no_wrap=True)
    for name in PASSES:
        one = found[name]
        lower, upper = (f"{1e3 * value:.4g}" for value in one["quartiles_s"])
        table.add_row(
            name,
            str(one["batch"]),
            f"{1e3 * one['median_s']:.4g}",
            f"{lower} – {upper}",
            str(one["steps"]),
            f"{one['images_per_s']:,.1f}",
            quantity(one["peak_memory_bytes"], "B"),
        )
    console.print(table)
    console.print(
        f"{found['params']:,} parameters; of one image {found['activations']:,} activations, {found['macs']:,} MACs, "
        f"{found['train_flops_per_sample']:,} training FLOPs. Memory: beside what the libraries take.",
        style="dim",
    )
