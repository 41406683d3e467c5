"""What ``trainer=auto`` measures before the first run of a sweep, of networks of which nothing is kept: layout, precision."""

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.config.trial import Impossible, Trial
from benchmarks.launch.checks import is_finished, refusal
from benchmarks.performance.forecasting import kept_results, training_steps
from benchmarks.performance.subprocesses import ask
from benchmarks.performance.throughput import label
from benchmarks.performance.tune import settings, with_setting
from benchmarks.records.files import read_json
from benchmarks.records.hardware import on_gpu
from benchmarks.training import tuned_settings
from benchmarks.units import duration, plural

MOST_S, SHARE = 10.0, 0.02  # the longest that is measured, and as a share of the forecast training time
FEWEST = 3  # rounds of two steps that a ratio needs, after as many to warm up
LOCAL = "benchmarks.launch.sweep.LocalExecutor"


def measure_missing(trials: Iterable[Trial | Impossible], say: Callable[[str], None]) -> None:
    """Measure what ``trainer=auto`` is to choose from for these trials, in a process of its own; say a line of each network.

    What was measured before stands: a sweep that goes on measures nothing again.
    """
    try:
        open_trials = [trial for trial in trials if isinstance(trial, Trial) and _is_open(trial)]
        lines = _measured(
            {tuned_settings.key_of(tuned_settings.specification(one.config)): one.config for one in open_trials}
        )
    except ValueError as error:
        lines = [f"nothing was measured ({error}), the default setting stays"]
    for line in lines:
        say(f"trainer=auto: {line}")


def _measured(configs: Mapping[str, dict[str, Any]]) -> list[str]:
    if not configs:
        return []
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".json") as file:
        json.dump(list(configs.values()), file)
        file.flush()
        threads = max(tuned_settings.specification(config)["threads"] for config in configs.values())
        lines: list[str] = ask("performance.brief_tuning", file.name, threads)["lines"]
        return lines


def _is_open(trial: Trial) -> bool:
    """Whether something is left to choose for a trial that will train on this machine, and nothing of it is kept."""
    config, trainer = trial.config, trial.config["trainer"]
    if not trainer.get("tuned") or config["mode"] == "test" or tuned_settings.unmeasurable(config):
        return False
    if trainer["channels_last"] is not None and not trainer["allow_reduced_precision"]:
        return False
    if config["cluster"]["executor"]["_target_"] != LOCAL or (trial.directory / tuned_settings.CHOSEN).exists():
        return False
    if is_finished(trial) or refusal(trial) is not None:
        return False
    root, key = config["output_root"], tuned_settings.key_of(tuned_settings.specification(config))
    kept = (read_json(path) or {} for path in Path(root, tuned_settings.FOLDER).glob("*.json"))
    # Which machine this is takes seconds to ask.
    if not any(key in one.get("networks", {}) for one in kept):
        return True
    return tuned_settings.find(root, _machine(on_gpu(config)), key)[0] is None


@cache
def _machine(gpu: bool) -> dict[str, Any]:
    """Return what a run here compares with a file's ``hardware``."""
    machine: dict[str, Any] = ask("training.options", gpu, 1)["hardware"]
    return machine


def measure(config: dict[str, Any]) -> str:
    """Measure a network's settings that need no compilation, keep them as ``tune`` does, and return the choice in a line.

    Raises:
        ValueError: there is no such network, its images cannot be read, or its length is not known before.
    """
    import torch

    from benchmarks.performance.step_time import Steps, interleaved
    from benchmarks.records.hardware import hardware
    from benchmarks.training.environment import environment
    from benchmarks.training.options import has_bf16

    base = tuned_settings.specification(config)
    device = torch.device("cuda" if base["gpu"] else "cpu")
    torch.set_num_threads(base["threads"])
    trainer = config["trainer"]
    reduced = bool(trainer["allow_reduced_precision"])
    plain = Steps(with_setting(base, tuned_settings.PLAIN), device).of(base)
    measured_s = plain()
    step_s = plain()
    measured_s += step_s
    training_s = step_s * training_steps(config, step_s, kept_results(config["output_root"]))
    limit = min(MOST_S, SHARE * training_s)
    has = {"tf32": False, "bf16": reduced and has_bf16(device), "compile": "takes longer than is measured here"}
    combinations, _ = settings(has, checkpointing=False)
    rows = [combinations[0] | {"batch": base["batch"], "train_images_per_s": base["batch"] / step_s}]
    rounds = 0
    for place, setting in enumerate(combinations[1:], start=1):
        left = (limit - measured_s) / (len(combinations) - place)
        if left < 3 * FEWEST * step_s:
            break
        how = {"fewest": FEWEST, "seconds": left - FEWEST * step_s}
        began = time.perf_counter()
        result = interleaved(plain, with_setting(base, setting), how, device)
        measured_s += time.perf_counter() - began
        if result:
            rounds += len(result["ratios"])
            rate = base["batch"] / step_s * median(result["ratios"])
            rows.append(setting | {"batch": base["batch"], "train_images_per_s": rate})
    if len(rows) == 1:
        short = f"{duration(limit)} of measuring, {SHARE:.0%} of its training at most, do not cover its steps"
        return f"{config['name']}: {short}; the default setting stays, `python -m benchmarks tune` measures all"
    machine = hardware(environment(device))
    entry = {"name": config["name"], "data": config["data"]["name"], "peaks": {}, "settings": rows}
    entry |= {"batches": [], "workers": []}
    path = tuned_settings.keep(config["output_root"], machine, tuned_settings.key_of(base), entry)
    chosen = tuned_settings.choice(config, entry)["trainer"]
    rates = {label(row): row["train_images_per_s"] / rows[0]["train_images_per_s"] for row in rows}
    others = ", ".join(f"{name} {rate:.2f}" for name, rate in rates.items() if name != label(rows[0]))
    taken = f"measured in {duration(measured_s)}, {plural(rounds, 'round')}; kept in {path}"
    return f"{config['name']}: {label(chosen)}; images/s as a multiple of those of {label(rows[0])}: {others} ({taken})"


def main(path: str) -> dict[str, list[str]]:
    """Measure the configurations in a JSON file, in a process of its own; return ``lines``, one of each."""
    lines = []
    for config in json.loads(Path(path).read_text(encoding="utf-8")):
        try:
            lines.append(measure(config))
        except ValueError as error:
            lines.append(f"{config['name']}: nothing was measured ({error}), the default setting stays")
    return {"lines": lines}
