"""What trials will cost before they run: training FLOPs by arithmetic, device time and memory from a few measured steps."""

import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.config.compose import paper_facts
from benchmarks.config.trial import ConfigurationError, Impossible, Trial, config_hash
from benchmarks.launch.checks import is_finished, missing_resources, refusal
from benchmarks.launch.process import can_fork
from benchmarks.performance.results import Results
from benchmarks.performance.subprocesses import ask, machine
from benchmarks.records import files
from benchmarks.records.code_version import training_sha256, user_code
from benchmarks.records.hardware import cores, on_gpu
from benchmarks.records.locks import update_json
from benchmarks.terminal import with_bar
from benchmarks.training import tuned_settings
from benchmarks.units import quantity

CACHE = "plan.json"
# A trial's time beside its steps: building, counting, reading data, saving. A forked process has imported everything.
FORKED_S, FRESH_S = 3.0, 15.0


class UnknownLengthError(ValueError):
    """A trial that can run, but whose number of steps is not known before."""


@dataclass(frozen=True)
class Forecast:
    """What one trial will cost.

    Attributes:
        problem: why it cannot run. The costs are then None, but of a row of a published table whose data cannot be read: they
            are for the paper's number of training images, without evaluation.
        unmeasured: why there is no device time. Training FLOPs are None too where the number of steps is not known before.
        device_s: seconds of all its devices. memory_bytes: of one process, beside what Python and the libraries take.
    """

    trial: Trial | Impossible
    finished: bool = False
    problem: str | None = None
    unmeasured: str | None = None
    params: int | None = None
    train_flops: int | None = None
    device_s: float | None = None
    memory_bytes: int | None = None
    hardware: str | None = None

    @property
    def remains(self) -> bool:
        """Whether its cost is still to be paid."""
        return not self.finished and self.problem is None


def forecast(
    trials: Sequence[Trial | Impossible], flops_per_s: float | None = None, measure: bool = True
) -> list[Forecast]:
    """Return the forecast of each trial, kept for those that are still to run.

    Device time comes from a stated throughput of one device, in FLOPs/s, or from steps, measured now if they have not been.

    Raises:
        ConfigurationError: the output root cannot be written to, or there is no training to forecast.
    """
    if any(isinstance(trial, Trial) and trial.config["mode"] == "test" for trial in trials):
        raise ConfigurationError("mode=test trains nothing: it has no forecast, and launch.budget does not apply to it")
    forecasts = []
    results_of = cache(kept_results)
    costs_by_root: dict[str, dict[str, Any]] = {}
    try:
        for trial in with_bar(trials, "forecast"):
            if isinstance(trial, Impossible):
                forecasts.append(Forecast(trial, problem=trial.error))
                continue
            root = trial.config["output_root"]
            one = _forecast(trial, results_of(root), flops_per_s, measure)
            forecasts.append(one)
            if one.train_flops is not None and not one.finished:
                costs = {name: getattr(one, name) for name in ("train_flops", "device_s", "memory_bytes", "hardware")}
                costs_by_root.setdefault(root, {})[config_hash(trial.config)] = costs | {"made": files.now()}
        for root, by_configuration in costs_by_root.items():
            keep(root, by_configuration)
    except OSError as error:
        raise ConfigurationError(f"cannot write to {error.filename}: {error.strerror}") from error
    return forecasts


def keep(output_root: str | Path, forecasts: Mapping[str, Mapping[str, Any]]) -> None:
    """Add forecasts, by the hash of their configuration, to ``<output_root>/forecasts.json``; a newer one replaces an older."""
    update_json(Path(output_root, files.FORECASTS), lambda kept: kept | dict(forecasts))


def _forecast(trial: Trial, results: Results, flops_per_s: float | None, measure: bool) -> Forecast:
    record = files.read_json(trial.directory / files.RECORD) or {}
    # A hash also tells 1 from 1.0, as runs of before have them where the files have the other.
    if is_finished(trial) and (record["config_hash"] == config_hash(trial.config) or refusal(trial) is None):
        # What other tools have written may lack any of these.
        cost, spent, parallel = (record.get(part) or {} for part in ("complexity", "compute", "parallel"))
        wall_s, processes = spent.get("wall_s"), parallel.get("world_size")
        device_s = None if wall_s is None or processes is None else wall_s * processes
        costs = {"params": cost.get("params"), "train_flops": spent.get("train_flops"), "device_s": device_s}
        return Forecast(trial, True, **costs)
    try:
        problem = refusal(trial)
        return Forecast(trial, problem=problem) if problem else _costs(trial, results, flops_per_s, measure)
    except ValueError as error:
        return Forecast(trial, problem=str(error))


def _costs(trial: Trial, results: Results, flops_per_s: float | None, measure: bool) -> Forecast:
    """Return the forecast. Raises ValueError for a missing network or data set, and for a length of no step."""
    config, trainer, batch = trial.config, trial.config["trainer"], trial.config["recipe"]["batch_size"]
    net = _network(config, results)
    problem = None
    try:
        data = _images(config, results)
    except ValueError as error:
        if (images := _images_of_the_paper(config)) is None:
            raise
        problem, data = str(error), {"counts": {"train": images, "val": 0, "test": 0}, "shapes": {}}
    devices = trainer["devices"] * trainer["num_nodes"]
    step_flops = batch * net["train_flops_per_sample"]
    step: dict[str, Any] = {"step_s": None, "memory_bytes": None, "hardware": None}
    unmeasured = None
    startup = compiling = 0.0
    if flops_per_s is not None:
        step["step_s"] = step_flops / (flops_per_s * devices)
        step["hardware"] = f"a stated {quantity(flops_per_s, 'FLOPs/s')}"
    else:
        startup = FORKED_S if can_fork() and not on_gpu(config) else FRESH_S
        try:
            step = _step(config, measure, results)
            compiling = max(0.0, step["first_s"] - step["step_s"])
        except ValueError as error:
            unmeasured = str(error)
        if missing := missing_resources(trial, config["launch"]["workers"]):
            step, unmeasured = step | {"step_s": None}, missing
    step_s = step["step_s"]
    try:
        steps, evaluations = _length(config, data["counts"]["train"], step_flops, step_s, compiling, unmeasured)
    except UnknownLengthError as error:
        memory = step["memory_bytes"]
        return Forecast(trial, problem=problem, unmeasured=str(error), params=net["params"], memory_bytes=memory)
    device_s = None
    if step_s is not None:
        flops = sum(
            times * data["counts"][split] * _passes(config, net, data["shapes"], split) * net["flops"]
            for split, times in (("val", evaluations), ("test", 1))
        )
        device_s = devices * (startup + compiling + steps * step_s + (flops * step_s / step_flops if flops else 0))
    return Forecast(
        trial,
        problem=problem,
        unmeasured=unmeasured,
        params=net["params"],
        train_flops=steps * step_flops,
        device_s=device_s,
        memory_bytes=step["memory_bytes"],
        hardware=step["hardware"],
    )


def kept_results(output_root: str) -> Results:
    """Return what was counted and measured before for runs below an output root, by the same code."""
    return Results(Path(output_root, "cache", CACHE), [training_sha256(), version("torch"), version("fvcore")])


def training_steps(config: dict[str, Any], step_s: float, results: Results) -> int:
    """Return the steps of a run whose step takes ``step_s`` seconds.

    Raises:
        ValueError: there is no such network or data set, or the length is not known before.
    """
    step_flops = config["recipe"]["batch_size"] * _network(config, results)["train_flops_per_sample"]
    return _length(config, _images(config, results)["counts"]["train"], step_flops, step_s, 0.0, None)[0]


def _network(config: dict[str, Any], results: Results) -> dict[str, Any]:
    """Return what a network costs, counted once."""
    image = [config["data"]["in_channels"], *config["data"]["image_size"]]
    depends_on = ["network", config["model"], image, *user_code(config).values()]
    return results.get(depends_on, lambda: _count(config["model"], image))


def _images(config: dict[str, Any], results: Results) -> dict[str, Any]:
    """Return the numbers and shapes of a data set's images, read once."""
    source = config["datamodule"]["source"]
    depends_on = ["data", config["data"], source, _state(config["data"].get("root")), *user_code(config).values()]
    return results.get(depends_on, lambda: _read(source))


def _length(
    config: dict[str, Any],
    count: int,
    step_flops: int,
    step_s: float | None,
    compiling_s: float,
    unmeasured: str | None,
) -> tuple[int, int]:
    """Return steps and evaluations over ``count`` images, as ``benchmarks.training.budget`` and Lightning end a run.

    Args:
        compiling_s: what the first step takes more than ``step_s``; a budget of seconds counts it.
        unmeasured: why there is no ``step_s``.

    Raises:
        UnknownLengthError: a budget of joules, or one of seconds without ``step_s``.
        ValueError: an epoch or a budget of FLOPs covers no step.
    """
    trainer, batch = config["trainer"], config["recipe"]["batch_size"]
    per_epoch = count // batch
    if (limit := trainer["limit_train_batches"]) is not None:
        per_epoch = min(per_epoch, limit)
    if per_epoch < 1:
        raise ValueError(f"an epoch needs at least one batch of {batch} images, the training split has {count}")
    if trainer.get("max_train_joules") is not None:
        raise UnknownLengthError("trainer.max_train_joules cannot be forecast: how many steps it covers is not known")
    if (flops := trainer.get("max_train_flops")) is not None:
        if not step_flops:
            raise ValueError("trainer.max_train_flops: a step costs 0 FLOPs: no product of the network is counted")
        steps = int(flops // step_flops)
        if steps < 1:
            raise ValueError(f"trainer.max_train_flops={flops:g} does not cover one step of {step_flops:.3g} FLOPs")
    elif (seconds := trainer.get("max_train_seconds")) is not None:
        if step_s is None:
            raise UnknownLengthError(f"trainer.max_train_seconds needs the time of a step: {unmeasured}")
        steps = max(1, math.ceil((seconds - compiling_s) / step_s))
    else:
        steps = per_epoch * trainer["max_epochs"]
    return steps, math.ceil(math.ceil(steps / per_epoch) / config["recipe"].get("validate_every", 1))


def _passes(config: dict[str, Any], net: dict[str, Any], shapes: dict[str, Sequence[int]], split: str) -> float:
    """Return how many forwards of a training image the evaluation of one image of a split costs, about."""
    if config["data"]["task"] == "classification":
        views = config["data"].get("test_views", ()) if split == "test" else ()
        return 1 + sum(10 if view == "10crop" else (view / config["data"]["image_size"][0]) ** 2 for view in views)
    if split not in shapes:  # files that are scaled to the recipe's size
        return 1.0
    shape = shapes[split]
    size, tiles = config["data"]["image_size"], config["recipe"].get("tiles")
    copies = 8 if config["recipe"].get("test_time_dihedral") else 1
    if tiles is None:
        return copies * math.prod(shape) / math.prod(size)
    new_side = tiles["tile"] - (2 * tiles["margin"] if tiles.get("margin") else net["border"])
    return copies * math.prod(math.ceil(side / new_side) for side in shape) * tiles["tile"] ** 2 / math.prod(size)


def _count(model: dict[str, Any], image: Sequence[int]) -> dict[str, Any]:
    from benchmarks.complexity.counting import build

    net, measured = build(model, image)
    cost = measured.as_dict()
    border = image[1] - net.output_size(*image[1:])[0] if callable(getattr(net, "output_size", None)) else 0
    return {key: cost[key] for key in ("params", "flops", "train_flops_per_sample")} | {"border": border}


def _read(source: dict[str, Any]) -> dict[str, Any]:
    """Return the number of images in each split; of decoded ones their height and width."""
    from hydra.utils import instantiate

    splits = instantiate(source)().named()
    return {
        "counts": {name: len(split) for name, split in splits.items()},
        "shapes": {name: list(split.images.shape[2:]) for name, split in splits.items() if hasattr(split, "images")},
    }


def _images_of_the_paper(config: dict[str, Any]) -> int | None:
    """Return the number of training images of the paper whose table the trial is a row of; None if that is not known."""
    if config["experiment"] is None:
        return None
    facts = _facts(config["experiment"])
    images: int | None = facts.get("train_images", facts.get(f"train_images.{config['data']['name']}"))
    return images


_facts = cache(paper_facts)  # the rows of a table share them


def _state(root: str | None) -> list[int]:
    """Return when files came to or left a folder or those in it; another set in the same place is another set."""
    if root is None or not Path(root).exists():
        return []
    places = [Path(root), *(Path(root).iterdir() if Path(root).is_dir() else ())]
    return sorted(path.stat().st_mtime_ns for path in places)


def _specification(config: dict[str, Any]) -> dict[str, Any]:
    """Return what defines a training step, with ``trainer=auto`` in the setting that a run takes here."""
    specification, root = tuned_settings.specification(config), config["output_root"]
    if not config["trainer"].get("tuned") or not tuned_settings.is_known(root, tuned_settings.key_of(specification)):
        return specification
    choice, _ = tuned_settings.choice_on(config, machine(on_gpu(config)))
    return tuned_settings.specification(config, choice["trainer"])


def _step(config: dict[str, Any], measure: bool, results: Results) -> dict[str, Any]:
    """Return time and memory of a training step. Raises ValueError where there is no measurement and none can be made."""
    if problem := tuned_settings.unmeasurable(config):
        raise ValueError(f"{problem}: --flops-per-s states the speed of a device")
    devices = config["trainer"]["devices"]
    specification = _specification(config)
    # A number of the optimiser changes no time and no memory unless it is zero.
    optimizer = {key: bool(v) if isinstance(v, int | float) else v for key, v in specification["optimizer"].items()}
    place = [platform.node(), cores(), os.environ.get("CUDA_VISIBLE_DEVICES"), *user_code(config).values()]
    depends_on = ["step", specification | {"optimizer": optimizer}, devices, *place]
    if measure:
        threads = specification["threads"]
        return results.get(depends_on, lambda: ask("performance.step_time", specification, threads, devices))
    if (step := results.find(depends_on)) is None:
        raise ValueError("its steps have not been measured on this machine")
    return step
