"""What ``trainer=auto`` measures before the first run of a sweep, of networks of which nothing is kept: layout, precision."""

import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

from benchmarks.config.trial import Impossible, Trial
from benchmarks.launch.checks import is_finished, refusal
from benchmarks.performance.forecasting import kept_results, training_steps
from benchmarks.performance.subprocesses import ask, machine
from benchmarks.performance.throughput import label
from benchmarks.performance.tune import settings, with_setting
from benchmarks.records.hardware import multiplies_bf16, on_gpu
from benchmarks.training import tuned_settings
from benchmarks.training.default_settings import complete
from benchmarks.units import duration, plural

MOST_S, SHARE = 10.0, 0.02  # the longest that is measured, and as a share of the forecast training time
FEWEST = 3  # rounds of two steps that a ratio needs, after as many to warm up
LOCAL = "benchmarks.launch.sweep.LocalExecutor"


def measure_missing(trials: Iterable[Trial | Impossible], say: Callable[[str], None]) -> None:
    """Measure what ``trainer=auto`` is to choose from for these trials, each network in a process of its own; say a line of it.

    What was measured before stands: a sweep that goes on measures nothing again.
    """
    try:
        networks = _missing(trials)
    except ValueError as error:
        say(f"trainer=auto: nothing was measured ({error}), the default setting stays")
        return
    for network in networks:
        config = network["config"]
        try:
            line = ask("performance.brief_tuning", network, tuned_settings.specification(config)["threads"])["line"]
        except ValueError as error:
            line = f"{config['name']}: nothing was measured ({error}), the default setting stays"
        say(f"trainer=auto: {line}")


def _missing(trials: Iterable[Trial | Impossible]) -> list[dict[str, Any]]:
    """Return the arguments of ``measure`` for each network of which a trial may take what was not measured."""
    networks: dict[str, dict[str, Any]] = {}
    for trial in trials:
        if isinstance(trial, Trial) and (missing := _to_measure(trial)):
            key = tuned_settings.key_of(tuned_settings.specification(trial.config))
            settings = networks.setdefault(key, {"config": trial.config, "wanted": []})["wanted"]
            settings += [one for one in missing if one not in settings]
    return [*networks.values()]


def _to_measure(trial: Trial) -> list[dict[str, Any]]:
    """Return the settings to measure for a trial that will train on this machine: none where all of its choice are kept, else
    with those that are kept, as rates of one measurement are compared."""
    config = trial.config
    if not config["trainer"].get("tuned") or config["mode"] == "test" or tuned_settings.unmeasurable(config):
        return []
    if config["cluster"]["executor"]["_target_"] != LOCAL or (trial.directory / tuned_settings.CHOSEN).exists():
        return []
    if is_finished(trial) or refusal(trial) is not None:
        return []
    open_settings = _open_settings(config)
    if len(open_settings) < 2:
        return []
    root, key = config["output_root"], tuned_settings.key_of(tuned_settings.specification(config))
    entry = None
    if tuned_settings.is_known(root, key):
        entry, _ = tuned_settings.find(root, machine(on_gpu(config)), key)
    kept = [{name: row[name] for name in tuned_settings.SETTING} for row in (entry or {"settings": []})["settings"]]
    if all(one in kept for one in open_settings):
        return []
    return open_settings + [one for one in kept if one not in open_settings]


def _open_settings(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the settings of a trial's choice that are measured here: of float32 and bfloat16, not compiled."""
    allow_reduced = bool(config["trainer"]["allow_reduced_precision"])
    fixed = tuned_settings.fixed(tuned_settings.pinned_by(config), allow_reduced)
    bf16 = fixed.get("precision") != tuned_settings.PLAIN["precision"] and multiplies_bf16(on_gpu(config)) is not False
    combinations, _ = settings({"tf32": False, "bf16": bf16, "compile": "takes longer"}, checkpointing=False)
    return [one for one in combinations if fixed.items() <= one.items()]


def measure(config: dict[str, Any], wanted: Iterable[dict[str, Any]]) -> str:
    """Measure the ``wanted`` settings of a network, keep them as ``tune`` does, and say in a line what the configuration takes.

    A setting for which time or memory does not suffice is kept without a rate.

    Raises:
        ValueError: there is no such network, its images cannot be read, or its length is not known before.
    """
    import torch

    from benchmarks.performance.step_time import Steps, interleaved
    from benchmarks.records.hardware import hardware
    from benchmarks.training.environment import environment

    base = tuned_settings.specification(config)
    device = torch.device("cuda" if base["gpu"] else "cpu")
    torch.set_num_threads(base["threads"])
    plain = Steps(with_setting(base, tuned_settings.PLAIN), device).of(base)
    measured_s = plain()
    step_s = plain()
    measured_s += step_s
    training_s = step_s * training_steps(config, step_s, kept_results(config["output_root"]))
    limit = min(MOST_S, SHARE * training_s)
    unmeasured = {"batch": base["batch"], "train_images_per_s": None}
    others = [setting | unmeasured for setting in wanted if setting != tuned_settings.PLAIN]
    rounds, ratios = 0, {}
    for place, row in enumerate(others):
        left = (limit - measured_s) / (len(others) - place)
        if left < 3 * FEWEST * step_s:
            break
        how = {"fewest": FEWEST, "seconds": left - FEWEST * step_s}
        began = time.perf_counter()
        result = interleaved(plain, with_setting(base, row), how, device)
        measured_s += time.perf_counter() - began
        if result:
            rounds += len(result["ratios"])
            ratios[label(row)] = median(result["ratios"])
            row["train_images_per_s"] = base["batch"] / step_s * ratios[label(row)]
    if not rounds:
        short = f"{limit:.2g} s of measuring, {SHARE:.0%} of its training at most, do not cover its steps"
        return f"{config['name']}: {short}; the default setting stays, `python -m benchmarks tune` measures all"
    reference = {**tuned_settings.PLAIN, "batch": base["batch"], "train_images_per_s": base["batch"] / step_s}
    entry = {"name": config["name"], "data": config["data"]["name"], "peaks": {}, "settings": [reference, *others]}
    entry |= {"batches": [], "workers": []}
    here = hardware(environment(device))
    path = tuned_settings.keep(config["output_root"], here, tuned_settings.key_of(base), entry)
    chosen, _ = complete(config, config["trainer"] | tuned_settings.choice(config, entry)["trainer"], base["gpu"])
    beside = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
    taken = f"measured in {duration(measured_s)}, {plural(rounds, 'round')}; kept in {path}"
    return (
        f"{config['name']}: {label(chosen)}; images/s as a multiple of those of {label(reference)}: {beside} ({taken})"
    )


def main(network: dict[str, Any]) -> dict[str, str]:
    """Measure a network, of the arguments of ``measure``, in a process of its own; return a ``line``, or an ``error``."""
    try:
        return {"line": measure(**network)}
    except ValueError as error:
        return {"error": str(error)}
