"""Latency, images per second and peak memory of a network: ``python -m benchmarks throughput model=densenet data=cifar10``."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import terminal
from benchmarks.config.compose import expand_all
from benchmarks.config.trial import ConfigurationError, Trial
from benchmarks.launch.checks import missing_resources, refusal
from benchmarks.performance import subprocesses
from benchmarks.performance.document import RATE, MeasuredTable, add_write_option, rate, table
from benchmarks.records import measured_speed
from benchmarks.records.files import now
from benchmarks.records.hardware import hardware
from benchmarks.training import tuned_settings
from benchmarks.training.tuned_settings import specification
from benchmarks.units import quantity, short_value

PASSES = ("latency", "forward", "training")
MEASURED_S = 10.0  # of each pass
LAYOUTS = {False: "NCHW", True: "channels_last"}
EXECUTION = {False: "eager", True: "compile"}
SAME = ("network", "image", "batch", "setting")
ALONE = MeasuredTable(
    "throughput",
    "Networks alone: latency, images per second, memory",
    {
        "network": ("network", "s"),
        "image": ("image", "s"),
        "batch": ("batch", "d"),
        "setting": ("setting", "s"),
        "latency_ms": ("latency of one image, ms", ".4g"),
        "forward_images_per_s": ("forward, images/s", RATE),
        "forward_of_peak": ("of peak", ".0%"),
        "train_images_per_s": ("training, images/s", RATE),
        "train_low": ("from", RATE),
        "train_high": ("to", RATE),
        "train_of_peak": ("of peak", ".0%"),
        "activations": ("activations of one image", ",d"),
        "train_memory_mib": ("memory of training, MiB", ",.0f"),
    },
    "Each network in a process of its own, on random images that lie ready on the device: the forward pass of evaluation on "
    "one image and on a batch, then whole training steps (forward, backward, optimiser), without the making of batches and "
    "without what the trainer adds. After warm-up, each step waited for; medians over up to 50 steps, of training with the "
    "quartiles. Of peak: FLOPs of convolutions and linear layers a second, as a share of what the best of ten products of "
    "large matrices reaches in the same precision just before. Memory is the highest beside what the libraries take.",
    same=SAME,
)
SCALING = MeasuredTable(
    "scaling",
    "Training over several processes",
    {
        "network": ("network", "s"),
        "image": ("image", "s"),
        "batch": ("global batch", "d"),
        "setting": ("setting", "s"),
        "processes": ("processes", "d"),
        "train_images_per_s": ("training, images/s", RATE),
        "train_low": ("from", RATE),
        "train_high": ("to", RATE),
        "speed_up": ("speed-up", ".2f"),
        "efficiency": ("efficiency", ".0%"),
    },
    "Training steps of DistributedDataParallel on one machine, each process with its equal share of the same global batch, and "
    "on a CPU with the same number of threads each; measured as above. Speed-up is against the row with the fewest processes, "
    "efficiency the speed-up as a share of how many times as many processes there are.",
    same=SAME,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``throughput``."""
    parser.description = (
        "Latency (one image), images per second forward and in training at the recipe's batch, with warm-up and "
        "synchronisation, in a process of its own; median and quartiles, activations, peak memory. With trainer.devices=2 both "
        "passes in as many processes at once; trainer.devices=1,2,4 also shows how training scales."
    )
    parser.epilog = (
        "The training options apply: trainer.compile=true, trainer.channels_last=true, trainer.precision=bf16-mixed, "
        "recipe.batch_size=… The figures are kept in OUTPUT_ROOT/throughput.json, from which the page takes them as the "
        "costs of the finished runs that they hold for."
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for run.py; several values make a sweep")
    parser.add_argument("--json", action="store_true", help="the figures as JSON, a list")
    add_write_option(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print a table per network and keep the figures.

    Raises:
        ValueError: there is no such network, or it cannot be measured here.
        OSError: the figures cannot be written.
    """
    trials = expand_all(arguments.overrides)
    for trial in trials:
        if problem := refusal(trial) or missing_resources(trial):
            raise ConfigurationError(problem)
    subprocesses.warn_if_busy()
    measurements = _measure_all(trials)
    if arguments.write:
        _write(measurements, arguments.command_line)
    if arguments.json:
        print(json.dumps(measurements, indent=1))
        return
    console = terminal.console()
    for measurement in measurements:
        _print(console, measurement)
    for rows in _scaling(measurements):
        console.print(
            ", ".join([*(str(rows[0][key]) for key in SAME), "the same threads in each process"]), markup=False
        )
        console.print(table({key: shown for key, shown in SCALING.columns.items() if key not in SAME}, rows))
    root = Path(trials[0].config["output_root"])
    console.print(f"kept in {root / measured_speed.KEPT}", markup=False)


def counts(config: dict[str, Any]) -> dict[str, int]:
    """Return parameters, activations, MACs and FLOPs of a configuration's network for one image.

    Raises:
        ValueError: there is no such network, or it does not take such images.
    """
    from benchmarks.complexity.counting import build

    data = config["data"]
    cost = build(config["model"], (data["in_channels"], *data["image_size"]))[1].as_dict()
    return {key: cost[key] for key in ("params", "activations", "macs", "flops", "train_flops_per_sample")}


def network(trial: Trial) -> str:
    """Return the name, with the arguments of the network that it does not show."""
    shown = [f"{key}={short_value(value)}" for key, value in trial.overrides.items() if key.startswith("model.")]
    return " ".join([trial.config["name"], *shown])


def label(setting: Mapping[str, Any]) -> str:
    """Return a setting in words: ``float32 NCHW eager``."""
    width = "bf16" if setting["precision"] == "bf16-mixed" else setting["precision"]
    if setting["precision"] == "32-true":
        width = {None: "float32", True: "TF32", False: "float32, no TF32"}[setting.get("tf32")]
    return f"{width} {LAYOUTS[bool(setting.get('channels_last'))]} {EXECUTION[bool(setting.get('compile'))]}"


def peak_of(peaks: Mapping[str, float], precision: str, in_effect: Mapping[str, Any]) -> float | None:
    """Return FLOPs a second of matrix products in the precision of convolutions; None where it was not measured.

    Args:
        peaks: as ``benchmarks.performance.peak`` prints them.
        in_effect: as ``TrainingOptions.as_dict``. By default a GPU's convolutions are in TF32.
    """
    if precision == "32-true":
        return peaks["tf32" if (in_effect["tf32"] or {}).get("convolutions") else "32-true"]
    return peaks.get("bf16-mixed") if precision.partition("-")[0] in {"16", "bf16"} else None


def _measure_all(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Measure the trials in turn. Where only the number of processes differs, all have the threads of the most processes."""
    bases = [specification(trial.config) | {"measured_s": MEASURED_S} for trial in trials]
    alike = [json.dumps({**base, "batch": None, "threads": None, "data": trial.config["data"]["name"]})
             for trial, base in zip(trials, bases, strict=True)]  # fmt: skip
    measurements: list[dict[str, Any]] = []
    machines: dict[int, dict[str, Any]] = {}
    for index in track(range(len(trials)), "measuring", console=Console(stderr=True), transient=True):
        base = bases[index]
        threads = min(other["threads"] for other, key in zip(bases, alike, strict=True) if key == alike[index])
        if threads not in machines:
            machines[threads] = subprocesses.ask("performance.peak", {"gpu": base["gpu"], "threads": threads}, threads)
        measurements.append(_measure(trials[index], {**base, "threads": threads}, machines[threads]))
    return measurements


def _measure(trial: Trial, base: dict[str, Any], machine: Mapping[str, Any]) -> dict[str, Any]:
    config, cost = trial.config, counts(trial.config)
    processes, environment = config["trainer"]["devices"], machine["environment"]
    if config["trainer"].get("tuned"):
        key = tuned_settings.key_of(specification(config))
        entry, line = tuned_settings.find(config["output_root"], hardware(environment), key)
        if line is not None:
            print(f"trainer=auto: {line}", file=sys.stderr)
        chosen = {"precision": base["precision"], **tuned_settings.choice(config, entry)["trainer"]}
        base = {**base, "precision": chosen.pop("precision"), "switches": base["switches"] | chosen}
    latency = {"forward": True, "batch": 1}
    both = [{"forward": True}, {"forward": False}]
    if processes == 1:
        taken = subprocesses.steps(base, [latency, *both])
    else:
        taken = subprocesses.steps(base, [latency]) + subprocesses.steps(base, both, processes)
    passes: dict[str, Any] = {}
    for name, one, flops in zip(PASSES, taken, ("flops", "flops", "train_flops_per_sample"), strict=True):
        if "error" in one:
            raise ValueError(f"{config['name']}, {name}: {one['error']}")
        batch = 1 if name == "latency" else base["batch"] * processes
        peak = peak_of(machine["peaks"], base["precision"], one["switches"])
        passes[name] = {
            "batch": batch,
            "median_s": one["step_s"],
            "quartiles_s": one["quartiles_s"],
            "steps": one["steps"],
            "images_per_s": batch / one["step_s"],
            "of_peak": peak and batch / one["step_s"] * cost[flops] / peak / (1 if name == "latency" else processes),
            "peak_memory_bytes": one["memory_bytes"],
        }
    measurement = {
        "network": network(trial),
        "name": config["name"],
        "data": config["data"]["name"],
        "image": base["image"],
        "precision": base["precision"],
        "switches": base["switches"],
        "processes": processes,
        "threads": base["threads"],
        **cost,
        **passes,
        "environment": environment,
        "made": now(),
    }
    of_a_run = {
        "data": config["data"]["name"],
        "name": config["name"],
        "recipe": config["recipe"]["name"],
        "overrides": trial.overrides,
        "environment": environment,
        "complexity": {"input_size": base["image"], **cost},
        "parallel": {
            "world_size": processes,
            "num_nodes": 1,
            "sync_batchnorm": False,
            "global_batch_size": base["batch"] * processes,
            "precision": base["precision"],
            **taken[-1]["switches"],
        },
    }
    measured_speed.keep(Path(config["output_root"]), str(measured_speed.key_of(of_a_run)), measurement)
    return measurement


def _print(console: Console, measurement: dict[str, Any]) -> None:
    image = "×".join(map(str, measurement["image"]))
    options = ", ".join(f"{name}={json.dumps(value)}" for name, value in measurement["switches"].items())
    several = f"{measurement['processes']} processes" if measurement["processes"] > 1 else ""
    where = measurement["environment"]["device_name"]
    how = ", ".join(filter(None, (measurement["precision"], options, several)))
    title = f"{measurement['network']}, images of {image}, {how}, {where}"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for header in ("", "batch", "ms, median", "quartiles", "steps", "images/s", "of peak", "peak memory"):
        shown.add_column(header, justify="left" if not header else "right", no_wrap=True)
    for name in PASSES:
        one = measurement[name]
        lower, upper = (f"{1e3 * value:.4g}" for value in one["quartiles_s"])
        shown.add_row(
            name,
            str(one["batch"]),
            f"{1e3 * one['median_s']:.4g}",
            f"{lower} – {upper}",
            str(one["steps"]),
            rate(one["images_per_s"]),
            "" if one["of_peak"] is None else f"{one['of_peak']:.0%}",
            quantity(one["peak_memory_bytes"], "B"),
        )
    console.print(shown)
    of = " of a process" if several else ""
    console.print(
        f"{measurement['params']:,} parameters; of one image {measurement['activations']:,} activations, "
        f"{measurement['macs']:,} MACs, {measurement['train_flops_per_sample']:,} training FLOPs. "
        f"Memory{of}: beside what the libraries take.",
        style="dim",
    )


def _row(measurement: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a measurement in a table of several networks."""
    forward, training = measurement["forward"], measurement["training"]
    others = [
        name for name in ("gradient_checkpointing", "accumulate_grad_batches") if measurement["switches"].get(name)
    ]
    low, high = (training["batch"] / time for time in reversed(training["quartiles_s"]))
    return {
        "network": measurement["network"],
        "image": "×".join(map(str, measurement["image"])),
        "batch": training["batch"],
        "setting": " ".join([label({"precision": measurement["precision"], **measurement["switches"]}), *others]),
        "processes": measurement["processes"],
        "latency_ms": 1e3 * measurement["latency"]["median_s"],
        "forward_images_per_s": forward["images_per_s"],
        "forward_of_peak": forward["of_peak"],
        "train_images_per_s": training["images_per_s"],
        "train_low": low,
        "train_high": high,
        "train_of_peak": training["of_peak"],
        "activations": measurement["activations"],
        "train_memory_mib": training["peak_memory_bytes"] / 2**20,
    }


def _scaling(measurements: Sequence[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the rows of each network and setting that was measured with several numbers of processes."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for one in measurements:
        row = _row(one)
        groups.setdefault((one["data"], *(row[key] for key in SAME)), []).append(row)
    scaled = []
    for rows in groups.values():
        rows.sort(key=lambda row: row["processes"])
        if (first := rows[0])["processes"] == rows[-1]["processes"]:
            continue
        for row in rows:
            row["speed_up"] = row["train_images_per_s"] / first["train_images_per_s"]
            row["efficiency"] = row["speed_up"] * first["processes"] / row["processes"]
        scaled.append(rows)
    return scaled


def _write(measurements: Sequence[Mapping[str, Any]], command: str) -> None:
    """Write scaling rows of what was measured with several numbers of processes, for the rest a row each."""
    environment, scaled = measurements[0]["environment"], [row for rows in _scaling(measurements) for row in rows]
    if scaled:
        SCALING.write(environment, command, scaled)
    in_scaling = [[row[key] for key in SAME] for row in scaled]
    alone = [row for row in map(_row, measurements) if [row[key] for key in SAME] not in in_scaling]
    if alone:
        ALONE.write(environment, command, alone)
