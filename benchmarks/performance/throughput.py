"""Latency, images per second and peak memory of a network: ``python -m benchmarks throughput model=densenet data=cifar10``."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import terminal
from benchmarks.complexity.profile import network_and_cost
from benchmarks.config.compose import expand_all
from benchmarks.config.trial import ConfigurationError, Trial
from benchmarks.launch.checks import missing_resources, refusal
from benchmarks.performance import subprocesses
from benchmarks.performance.document import MIB, MS, RATE, MeasuredTable, add_write_option, interval, named, table
from benchmarks.records import measured_speed
from benchmarks.records.files import now
from benchmarks.records.hardware import hardware
from benchmarks.training import tuned_settings
from benchmarks.units import short_value

PASSES = ("latency", "forward", "training")
MEASURED_S = 10.0  # of each pass
LAYOUTS = {False: "NCHW", True: "channels_last"}
EXECUTION = {False: "eager", True: "compile"}
SAME = ("network", "image", "batch", "setting")
NETWORK = named(network="s", image="s", batch="d", setting="s")
PASS = {
    "pass": ("", "s"),
    "batch": ("batch", "d"),
    **interval("median_s", "ms, median", MS),
    "steps": ("steps", "d"),
    "images_per_s": ("images/s", RATE),
    "of_peak": ("of peak", ".0%"),
    "peak_memory_bytes": ("peak memory, MiB", MIB),
}
ALONE = MeasuredTable(
    "throughput",
    "Networks alone: latency, images per second, memory",
    {
        **NETWORK,
        "latency_ms": ("latency of one image, ms", ".4g"),
        "forward_images_per_s": ("forward, images/s", RATE),
        "forward_of_peak": ("of peak", ".0%"),
        **interval("train_images_per_s", "training, images/s", RATE),
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
        **NETWORK,
        "batch": ("global batch", "d"),
        "processes": ("processes", "d"),
        **interval("train_images_per_s", "training, images/s", RATE),
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
    terminal.add_overrides(parser, "; several values make a sweep")
    parser.add_argument("--json", action="store_true", help="the figures as JSON, a list")
    add_write_option(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print a table per network and keep the figures.

    Raises:
        ValueError: there is no such network, it cannot be measured here, or ``--write`` beside several numbers of threads.
        OSError: the figures cannot be written.
    """
    trials = expand_all(arguments.overrides)
    for trial in trials:
        if problem := refusal(trial) or missing_resources(trial) or tuned_settings.unmeasurable(trial.config):
            raise ConfigurationError(problem)
    bases = _bases(trials)
    threads = sorted({base["threads"] for base in bases})
    if arguments.write and len(threads) > 1:
        raise ConfigurationError(f"--write keeps figures of one number of threads, got {', '.join(map(str, threads))}")
    measurements = _measure_all(trials, bases, subprocesses.warn_if_busy())
    alone, scaling = _rows(measurements)
    for kind, rows in ((ALONE, alone), (SCALING, scaling)):
        if arguments.write and rows:
            kind.write(measurements[0]["environment"], arguments.command_line, rows)
    if arguments.json:
        print(json.dumps(measurements, indent=1))
        return
    console = terminal.console()
    for measurement in measurements:
        _print(console, measurement)
    if scaling:
        console.print(table(SCALING.columns, scaling, "the same threads in each process"))
    console.print(f"kept in {Path(trials[0].config['output_root'], measured_speed.KEPT)}", markup=False)


def counts(config: dict[str, Any]) -> dict[str, int]:
    """Return parameters, activations, MACs and FLOPs of a configuration's network for one image; raise as ``build`` does."""
    cost = network_and_cost(config)[1].as_dict()
    return {key: cost[key] for key in ("params", "activations", "macs", "flops", "train_flops_per_sample")}


def label(setting: Mapping[str, Any]) -> str:
    """Return a setting in words: ``float32 NCHW eager``."""
    width = "bf16" if setting["precision"] == "bf16-mixed" else setting["precision"]
    if setting["precision"] == "32-true":
        width = {None: "float32", True: "TF32", False: "float32, no TF32"}[setting.get("tf32")]
    return f"{width} {LAYOUTS[bool(setting.get('channels_last'))]} {EXECUTION[bool(setting.get('compile'))]}"


def peak_of(peaks: Mapping[str, float], precision: str, in_effect: Mapping[str, Any]) -> float | None:
    """Return FLOPs a second of matrix products in the precision of convolutions; None where it was not measured.

    Args:
        peaks: as ``main`` of ``benchmarks.performance.peak`` returns them.
        in_effect: as ``TrainingOptions.as_dict``. By default a GPU's convolutions are in TF32.
    """
    if precision == "32-true":
        return peaks["tf32" if (in_effect["tf32"] or {}).get("convolutions") else "32-true"]
    return peaks.get("bf16-mixed") if precision.partition("-")[0] in {"16", "bf16"} else None


def trainable(overrides: Sequence[str]) -> Trial:
    """Return the one trial of ``overrides``; raise ConfigurationError where they compose to none, or it must not start, or its
    steps cannot be measured."""
    [trial] = expand_all(overrides, multirun=False)
    if problem := refusal(trial) or tuned_settings.unmeasurable(trial.config):
        raise ConfigurationError(problem)
    return trial


def _bases(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Return what is measured of each trial, all with the threads that the one of most processes has unless they are set."""
    bases = [tuned_settings.specification(trial.config) | {"measured_s": MEASURED_S} for trial in trials]
    fewest = min(base["threads"] for base in bases)
    for trial, base in zip(trials, bases, strict=True):
        base["threads"] = trial.config["cluster"]["threads_per_process"] or fewest
    return bases


def _measure_all(trials: Sequence[Trial], bases: Sequence[dict[str, Any]], load: float | None) -> list[dict[str, Any]]:
    """Measure the trials one after the other.

    Args:
        bases: of each trial, as ``_bases``.
        load: of others on the machine, by which the figures are marked; None for none.
    """
    measurements: list[dict[str, Any]] = []
    machines: dict[int, dict[str, Any]] = {}
    for trial, base in zip(terminal.with_bar(trials, "measuring"), bases, strict=True):
        threads = base["threads"]
        if threads not in machines:
            machines[threads] = subprocesses.ask("performance.peak", base, threads)
        measurements.append(_measure(trial, base, machines[threads], load))
    return measurements


def _measure(trial: Trial, base: dict[str, Any], machine: Mapping[str, Any], load: float | None) -> dict[str, Any]:
    config, cost = trial.config, counts(trial.config)
    processes, environment = config["trainer"]["devices"], machine["environment"]
    if config["trainer"].get("tuned"):
        choice, line = tuned_settings.choice_on(config, hardware(environment))
        if line is not None:
            print(f"trainer=auto: {line}", file=sys.stderr)
        tuned = tuned_settings.specification(config, choice["trainer"])
        base = base | {name: tuned[name] for name in ("precision", "options")}
    latency = {"forward": True, "batch": 1}
    both = [{"forward": True}, {"forward": False}]
    if processes == 1:
        results = subprocesses.steps(base, [latency, *both])
    else:
        results = subprocesses.steps(base, [latency]) + subprocesses.steps(base, both, processes)
    passes: dict[str, Any] = {}
    for name, result, flops in zip(PASSES, results, ("flops", "flops", "train_flops_per_sample"), strict=True):
        if "error" in result:
            raise ValueError(f"{config['name']}, {name}: {result['error']}")
        ranks, batch = (1, 1) if name == "latency" else (processes, base["batch"] * processes)
        peak = peak_of(machine["peaks"], base["precision"], result["options"])
        passes[name] = {
            "batch": batch,
            "median_s": result["step_s"],
            "quartiles_s": result["quartiles_s"],
            "steps": result["steps"],
            "images_per_s": batch / result["step_s"],
            "of_peak": peak and batch / result["step_s"] * cost[flops] / (peak * ranks),
            "peak_memory_bytes": result["memory_bytes"],
        }
    measurement = {
        "network": trial.network,
        "name": config["name"],
        "data": config["data"]["name"],
        **{key: base[key] for key in ("image", "precision", "options")},
        "processes": processes,
        "threads": base["threads"],
        **cost,
        **passes,
        "environment": environment,
        "made": now(),
        measured_speed.LOAD: load,
    }
    record = {  # as a run of it would have
        **measurement,
        "recipe": config["recipe"]["name"],
        "overrides": trial.overrides,
        "complexity": {"input_size": base["image"], **cost},
        "parallel": {
            "world_size": processes,
            "num_nodes": 1,
            "sync_batchnorm": False,
            "global_batch_size": base["batch"] * processes,
            "precision": base["precision"],
            **results[-1]["options"],
        },
    }
    measured_speed.keep(Path(config["output_root"]), str(measured_speed.key_of(record)), measurement)
    return measurement


def _print(console: Console, measurement: dict[str, Any]) -> None:
    image = "×".join(map(str, measurement["image"]))
    options = [f"{name}={json.dumps(value)}" for name, value in measurement["options"].items()]
    several = [f"{measurement['processes']} processes"] if measurement["processes"] > 1 else []
    how = ", ".join([measurement["precision"], *options, *several, measurement["environment"]["device_name"]])
    rows = []
    for name in PASSES:
        lower, upper = measurement[name]["quartiles_s"]
        rows.append({"pass": name, "median_s_low": lower, "median_s_high": upper, **measurement[name]})
    console.print(table(PASS, rows, f"{measurement['network']}, images of {image}, {how}"))
    console.print(
        f"{measurement['params']:,} parameters; of one image {measurement['activations']:,} activations, "
        f"{measurement['macs']:,} MACs, {measurement['train_flops_per_sample']:,} training FLOPs. From and to: quartiles. "
        f"Memory{' of a process' if several else ''}: beside what the libraries take.",
        style="dim",
    )


def _row(measurement: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a measurement in a table of several networks."""
    forward, training = measurement["forward"], measurement["training"]
    options = measurement["options"]
    others = [
        name if value is True else f"{name}={short_value(value)}"
        for name, value in options.items()
        if name not in tuned_settings.SETTING and value
    ]
    low, high = (training["batch"] / seconds for seconds in reversed(training["quartiles_s"]))
    return {
        "network": measurement["network"],
        "image": "×".join(map(str, measurement["image"])),
        "batch": training["batch"],
        "setting": " ".join([label({"precision": measurement["precision"], **options}), *others]),
        "processes": measurement["processes"],
        "latency_ms": 1e3 * measurement["latency"]["median_s"],
        "forward_images_per_s": forward["images_per_s"],
        "forward_of_peak": forward["of_peak"],
        "train_images_per_s": training["images_per_s"],
        "train_images_per_s_low": low,
        "train_images_per_s_high": high,
        "train_of_peak": training["of_peak"],
        "activations": measurement["activations"],
        "train_memory_mib": training["peak_memory_bytes"] / 2**20,
    }


def _rows(measurements: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of networks alone, and those of what was measured with several numbers of processes."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for measurement in measurements:
        row = _row(measurement)
        groups.setdefault((measurement["data"], *(row[key] for key in SAME)), []).append(row)
    alone, scaling = [], []
    for rows in groups.values():
        rows.sort(key=lambda row: row["processes"])
        if (first := rows[0])["processes"] == rows[-1]["processes"]:
            alone += rows
            continue
        for row in rows:
            row["speed_up"] = row["train_images_per_s"] / first["train_images_per_s"]
            row["efficiency"] = row["speed_up"] * first["processes"] / row["processes"]
        scaling += rows
    return alone, scaling
