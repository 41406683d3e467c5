"""What a sweep will cost, before it runs: ``python -m benchmarks plan model=resnet,densenet seed=range(5)``."""

import argparse
import hashlib
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from benchmarks import terminal
from benchmarks.config.compose import expand
from benchmarks.config.trial import ConfigurationError, Impossible, Trial, config_hash
from benchmarks.launch.checks import is_finished, lack, refusal
from benchmarks.launch.process import can_fork
from benchmarks.performance.forecasts import keep
from benchmarks.performance.subprocesses import ask
from benchmarks.records import files
from benchmarks.records.code_version import training_sha256
from benchmarks.records.hardware import cores, on_gpu
from benchmarks.training import tuned_settings
from benchmarks.units import MISSING, device_hours, hours, quantity, si

KEPT = "plan.json"
FOLD_ABOVE = 30  # rows
NAMED = 10  # trials that cannot run
# A trial's time beside its steps: building, counting, reading data, saving. A forked process has imported everything.
FORKED_S, FRESH_S = 3.0, 15.0
LIMITS = ("train_flops", "device_hours", "money")


@dataclass(frozen=True)
class Method:
    """Where device time comes from: a stated throughput of one device, in FLOPs/s, or a measurement where there is none."""

    flops_per_s: float | None = None
    measure: bool = True


@dataclass(frozen=True)
class Forecast:
    """What one trial will cost.

    Attributes:
        problem: why it cannot run, or cannot be forecast; the costs are then None.
        unmeasured: why there is no device time.
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


def main(argv: Sequence[str]) -> int:
    """Prints the forecast and keeps it. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks plan",
        description="What a sweep will cost before it runs: training FLOPs (exact), device-hours, memory and money, of each "
        "trial and in all. Nothing is launched.",
        epilog="Device time and memory come from a few training steps on this machine, once for each network, image size, "
        "batch and number of devices; they are kept in OUTPUT_ROOT/cache. The making of batches is not measured. "
        "launch.price_per_device_hour=… adds money. The forecast is kept in OUTPUT_ROOT/forecasts.json, and the table of runs "
        "compares it with what was spent.",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="as for run.py -m; several values make a sweep"
    )
    parser.add_argument(
        "--flops-per-s", type=_positive, metavar="RATE", help="throughput of one device, as 4e13: nothing is measured"
    )
    parser.add_argument(
        "--measure",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure steps that have not been measured here before (default); --no-measure leaves their time out",
    )
    arguments = parser.parse_intermixed_args([argument for argument in argv if argument not in {"-m", "--multirun"}])
    try:
        return show(
            expand(arguments.overrides, multirun=True), Method(arguments.flops_per_s, measure=arguments.measure)
        )
    except ConfigurationError as error:
        print(f"python -m benchmarks plan: {error}", file=sys.stderr)
        return 2


def show(trials: Sequence[Trial | Impossible], method: Method | None = None) -> int:
    """Forecasts, prints and keeps. Returns the exit code: 1 if some trial cannot run."""
    method = method or Method()
    console = terminal.console()
    forecasts = forecast(trials, method, console)
    _print(console, forecasts, method)
    return 1 if any(one.problem for one in forecasts) else 0


def check_budget(trials: Sequence[Trial | Impossible]) -> None:
    """Lets a sweep pass whose remaining forecast is within ``launch.budget``; at once where no limit is set.

    Raises:
        ConfigurationError: it is above a limit, or a limit that is no positive number, or of money without a price.
    """
    launch = next(trial.config["launch"] for trial in trials if isinstance(trial, Trial))
    limits = {name: launch["budget"][name] for name in LIMITS if launch["budget"][name] is not None}
    price = launch["price_per_device_hour"]
    if not limits:
        return
    for name, limit in limits.items():
        if not isinstance(limit, int | float) or isinstance(limit, bool) or limit <= 0:
            raise ConfigurationError(f"launch.budget.{name} is a positive number or null, got {limit!r}")
    if "money" in limits and price is None:
        raise ConfigurationError("launch.budget.money needs launch.price_per_device_hour")
    method = Method(measure=limits.keys() != {"train_flops"})
    left = [one for one in forecast(trials, method, Console(stderr=True)) if one.remains]
    spent = {"train_flops": float(sum(one.train_flops or 0 for one in left))}
    spent["device_hours"] = sum(one.device_s or 0 for one in left) / 3600
    spent["money"] = spent["device_hours"] * (price or 0)
    for name, limit in limits.items():
        unknown = [one for one in left if name != "train_flops" and one.device_s is None]
        if unknown:
            raise ConfigurationError(
                f"launch.budget.{name} cannot be checked: {unknown[0].trial.label}: {unknown[0].unmeasured}"
            )
        if spent[name] > limit:
            raise ConfigurationError(
                f"nothing was started: {name} of what remains ({len(left)} of {len(trials)} runs) is forecast as "
                f"{spent[name]:.4g}, above launch.budget.{name}={limit:g}"
            )


def forecast(trials: Sequence[Trial | Impossible], method: Method, console: Console) -> list[Forecast]:
    """The forecast of each trial, kept for those that are still to run; a bar on ``console`` while it measures.

    Raises:
        ConfigurationError: the output root cannot be written to, or there is no training to forecast.
    """
    if any(isinstance(trial, Trial) and trial.config["mode"] == "test" for trial in trials):
        raise ConfigurationError("mode=test trains nothing: it has no forecast, and launch.budget does not apply to it")
    try:
        return _forecast_all(trials, method, console)
    except OSError as error:
        raise ConfigurationError(f"cannot write to {error.filename}: {error.strerror}") from error


def _forecast_all(trials: Sequence[Trial | Impossible], method: Method, console: Console) -> list[Forecast]:
    columns = (TextColumn("forecast"), BarColumn(bar_width=28), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(trials))
        stores: dict[str, _Store] = {}
        found = []
        for trial in trials:
            if isinstance(trial, Impossible):
                found.append(Forecast(trial, problem=trial.error))
            else:
                root = trial.config["output_root"]
                store = stores.setdefault(root, _Store(root, lambda text: bar.update(task, description=text)))
                found.append(_forecast(trial, method, store))
            bar.advance(task)
    for root in stores:
        its = {
            config_hash(one.trial.config): {
                "train_flops": one.train_flops,
                "device_s": one.device_s,
                "memory_bytes": one.memory_bytes,
                "hardware": one.hardware,
                "made": files.now(),
            }
            for one in found
            if one.remains and isinstance(one.trial, Trial) and one.trial.config["output_root"] == root
        }
        if its:
            keep(root, its)
    return found


class _Store:
    """What was counted and measured before, by what it depends on, in ``<output_root>/cache/plan.json``.

    Args:
        root: output root.
        tell: is told what takes time.
    """

    def __init__(self, root: str, tell: Callable[[str], None]) -> None:
        self.path = Path(root, "cache", KEPT)
        self.tell = tell
        self.content = files.read_json(self.path) or {}
        self.failed: dict[str, str] = {}

    def find(self, depends_on: Sequence[Any]) -> dict[str, Any] | None:
        """What was kept under this."""
        return self.content.get(_digest(depends_on))

    def get(self, depends_on: Sequence[Any], doing: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What was kept under this, or made now.

        Raises:
            ValueError: it cannot be made, with the reason in one line.
        """
        key = _digest(depends_on)
        if key in self.failed:
            raise ValueError(self.failed[key])
        if key not in self.content:
            self.tell(doing)
            try:
                self.content[key] = make()
            except Exception as error:
                self.failed[key] = _reason(error)
                raise ValueError(self.failed[key]) from error
            finally:
                self.tell("")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(self.path, (files.read_json(self.path) or {}) | self.content)
        return self.content[key]


def _forecast(trial: Trial, method: Method, store: _Store) -> Forecast:
    record = files.read_json(trial.directory / files.RECORD) or {}
    if is_finished(trial) and record["config_hash"] == config_hash(trial.config):
        cost, spent = record["complexity"], record["compute"]
        device_s = spent["wall_s"] * record["parallel"]["world_size"]
        return Forecast(
            trial, finished=True, params=cost["params"], train_flops=spent["train_flops"], device_s=device_s
        )
    try:
        problem = refusal(trial)
        return Forecast(trial, problem=problem) if problem else _costs(trial, method, store)
    except ValueError as error:
        return Forecast(trial, problem=str(error))


def _costs(trial: Trial, method: Method, store: _Store) -> Forecast:
    """Raises ValueError for a network or data set that cannot be had, and for a length that cannot be told."""
    config, trainer, batch = trial.config, trial.config["trainer"], trial.config["recipe"]["batch_size"]
    image = [config["data"]["in_channels"], *config["data"]["image_size"]]
    code = [training_sha256(), version("torch"), version("fvcore")]
    net = store.get(
        ["network", config["model"], image, *code],
        f"counting {config['name']}",
        lambda: _count(config["model"], image),
    )
    source = config["datamodule"]["source"]
    data = store.get(
        ["data", config["data"], source, _state(config["data"].get("root")), *code],
        f"reading {config['data']['name']}",
        lambda: _read(source),
    )
    devices = trainer["devices"] * trainer["num_nodes"]
    step_flops = batch * net["train_flops_per_sample"]
    step: dict[str, Any] = {"step_s": None, "memory_bytes": None, "hardware": None}
    unmeasured = None
    startup = 0.0
    if method.flops_per_s is not None:
        step["step_s"] = step_flops / (method.flops_per_s * devices)
        step["hardware"] = f"a stated {quantity(method.flops_per_s, 'FLOPs/s')}"
    else:
        startup = FORKED_S if can_fork() and not on_gpu(config) else FRESH_S
        try:
            step = _step(config, method.measure, store)
        except ValueError as error:
            unmeasured = str(error)
        if missing := lack(trial, config["launch"]["workers"]):
            step, unmeasured = step | {"step_s": None}, missing
    step_s = step["step_s"]
    steps, evaluations = _length(config, data["counts"]["train"], step_flops, step_s, unmeasured)
    device_s = None
    if step_s is not None:
        flops = sum(
            times * data["counts"][split] * _passes(config, net, data["shapes"], split) * net["flops"]
            for split, times in (("val", evaluations), ("test", 1))
        )
        device_s = devices * (startup + steps * step_s + flops * step_s / step_flops)
    return Forecast(
        trial,
        unmeasured=unmeasured,
        params=net["params"],
        train_flops=steps * step_flops,
        device_s=device_s,
        memory_bytes=step["memory_bytes"],
        hardware=step["hardware"],
    )


def _length(
    config: dict[str, Any], count: int, step_flops: int, step_s: float | None, unmeasured: str | None
) -> tuple[int, int]:
    """Training steps and evaluations of a run over ``count`` images, as ``benchmarks.training.budget`` and Lightning end it."""
    trainer, batch = config["trainer"], config["recipe"]["batch_size"]
    per_epoch = count // batch
    limit = trainer.get("limit_train_batches")
    if isinstance(limit, float):
        per_epoch = int(per_epoch * limit)
    elif limit is not None:
        per_epoch = min(per_epoch, limit)
    if per_epoch < 1:
        raise ValueError(f"an epoch needs at least one batch of {batch} images, the training split has {count}")
    if trainer.get("max_train_joules") is not None:
        raise ValueError("trainer.max_train_joules cannot be forecast: how many steps it covers is not known")
    if (flops := trainer.get("max_train_flops")) is not None:
        steps = int(flops // step_flops)
        if steps < 1:
            raise ValueError(f"trainer.max_train_flops={flops:g} does not cover one step of {step_flops:.3g} FLOPs")
    elif (seconds := trainer.get("max_train_seconds")) is not None:
        if step_s is None:
            raise ValueError(f"trainer.max_train_seconds needs the time of a step: {unmeasured}")
        steps = math.ceil(seconds / step_s)
    else:
        steps = per_epoch * trainer["max_epochs"]
    return steps, math.ceil(steps / per_epoch)


def _passes(config: dict[str, Any], net: dict[str, Any], shapes: dict[str, Sequence[int]], split: str) -> float:
    """How many forwards of a training image the evaluation of one image of a split costs, about."""
    if config["data"]["task"] == "classification":
        views = config["data"].get("test_views", ()) if split == "test" else ()
        return 1 + sum(10 if view == "10crop" else (view / config["data"]["image_size"][0]) ** 2 for view in views)
    shape = shapes[split]
    size, tiles = config["data"]["image_size"], config["recipe"].get("tiles")
    copies = 8 if config["recipe"].get("test_time_dihedral") else 1
    if tiles is None:
        return copies * math.prod(shape) / math.prod(size)
    kept = tiles["tile"] - (2 * tiles["margin"] if tiles.get("margin") else net["border"])
    return copies * math.prod(math.ceil(side / kept) for side in shape) * tiles["tile"] ** 2 / math.prod(size)


def _count(model: dict[str, Any], image: Sequence[int]) -> dict[str, Any]:
    from benchmarks.complexity.counting import build

    net, measured = build(model, image)
    cost = measured.as_dict()
    border = image[1] - net.output_size(*image[1:])[0] if hasattr(net, "output_size") else 0
    return {key: cost[key] for key in ("params", "flops", "train_flops_per_sample")} | {"border": border}


def _read(source: dict[str, Any]) -> dict[str, Any]:
    """Number of images in each split; of decoded ones their height and width."""
    from hydra.utils import instantiate

    splits = instantiate(source)().named()
    return {
        "counts": {name: len(split) for name, split in splits.items()},
        "shapes": {name: list(split.images.shape[2:]) for name, split in splits.items() if hasattr(split, "images")},
    }


def _state(root: str | None) -> list[int]:
    """When files came to or left a folder or those in it; another set in the same place is another set."""
    if root is None or not Path(root).exists():
        return []
    places = [Path(root), *(Path(root).iterdir() if Path(root).is_dir() else ())]
    return sorted(path.stat().st_mtime_ns for path in places)


def _step(config: dict[str, Any], measure: bool, store: _Store) -> dict[str, Any]:
    """Time and memory of a training step. Raises ValueError where there is no measurement and none can be made."""
    devices = config["trainer"]["devices"]
    specification = tuned_settings.specification(config)
    # A number of the optimiser changes no time and no memory unless it is zero.
    optimizer = {key: bool(v) if isinstance(v, int | float) else v for key, v in specification["optimizer"].items()}
    machine = [platform.node(), cores(), os.environ.get("CUDA_VISIBLE_DEVICES")]
    depends_on = [
        "step",
        specification | {"optimizer": optimizer},
        devices,
        *machine,
        training_sha256(),
        version("torch"),
    ]
    if not measure:
        kept = store.find(depends_on)
        if kept is None:
            raise ValueError("its steps have not been measured on this machine")
        return kept
    return store.get(depends_on, f"measuring {config['name']}", lambda: _measure(specification, devices))


def _measure(specification: dict[str, Any], ranks: int) -> dict[str, Any]:
    return ask("performance.step_time", specification, specification["threads"], ranks)


def _print(console: Console, forecasts: Sequence[Forecast], method: Method) -> None:
    rows = [one for one in forecasts if isinstance(one.trial, Trial) and one.problem is None]
    price = next(
        (one.trial.config["launch"]["price_per_device_hour"] for one in rows if isinstance(one.trial, Trial)), None
    )
    groups: dict[Any, list[Forecast]] = {}
    for index, one in enumerate(rows):
        groups.setdefault(_group(one) if len(rows) > FOLD_ABOVE else index, []).append(one)
    left = [one for one in rows if one.remains]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_footer=bool(left))
    totals = _sums(left, price)
    table.add_column("network", "remains", overflow="fold")
    table.add_column("data", overflow="fold")
    table.add_column("recipe", overflow="fold")
    table.add_column("seeds" if len(rows) > FOLD_ABOVE else "seed", f"{len(left)} runs", justify="right")
    table.add_column("params", justify="right")
    for header, total in zip(("train\nFLOPs", "device-\nhours", "memory", "money"), totals, strict=True):
        if header != "money" or price is not None:
            table.add_column(header, "" if header == "memory" else total, justify="right", no_wrap=True)
    table.add_column("status")
    for its in groups.values():
        table.add_row(*_row(its, price))
    if rows:
        console.print(table)
    _notes(console, forecasts, left, method)


def _group(one: Forecast) -> tuple[Any, ...]:
    trial: Any = one.trial
    return trial.config["name"], trial.config["data"]["name"], trial.directory.parent


def _row(its: Sequence[Forecast], price: float | None) -> list[str]:
    """A line of the table: one trial, or those that differ in the seed alone."""
    trial: Any = its[0].trial
    recipe = trial.directory.parent.name
    done = sum(one.finished for one in its)
    seed = str(len(its)) if len(its) > 1 else str(trial.config["seed"])
    flops, time, memory, money = _sums(its, price)
    status = "" if not done else "[green]done[/]" if done == len(its) else f"[green]{done} done[/]"
    sums = [flops, time, memory, *([] if price is None else [money])]
    return [trial.config["name"], trial.config["data"]["name"], recipe, seed, si(its[0].params), *sums, status]


def _sums(its: Sequence[Forecast], price: float | None) -> tuple[str, str, str, str]:
    """FLOPs, device-hours, memory (the most of any) and money, as text; time is left out unless all have it."""
    flops = si(sum(one.train_flops or 0 for one in its))
    memory = max((one.memory_bytes or 0 for one in its), default=0)
    times = [one.device_s for one in its if one.device_s is not None]
    most = quantity(memory, "B") if memory else MISSING
    if len(times) < len(its) or not its:
        return flops, MISSING, most, MISSING
    return flops, hours(sum(times)), most, f"{sum(times) / 3600 * (price or 0):,.2f}"


def _notes(console: Console, forecasts: Sequence[Forecast], left: Sequence[Forecast], method: Method) -> None:
    """Below the table: what remains, where figures come from, and what cannot run."""

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    finished = sum(one.finished for one in forecasts)
    flops = quantity(sum(one.train_flops or 0 for one in left), "FLOPs")
    times = [one.device_s for one in left if one.device_s is not None]
    time = f", {device_hours(sum(times))}" if times and len(times) == len(left) else ""
    done = f"; {finished} done" if finished else ""
    say(f"{len(left)} of {len(forecasts)} runs remain: {flops} of training{time}{done}.", "bold")
    say("train FLOPs: exact. device-hours: wall time x devices x machines. What is done shows what it took.", "dim")
    hardware = dict.fromkeys(one.hardware for one in left if one.hardware)
    if method.flops_per_s is not None:
        say("Device time: training and evaluation at the stated throughput of one device; no start-up.", "dim")
    elif times:
        say(
            f"Device time and memory: training steps measured on {', '.join(map(str, hardware))}; evaluation by its FLOPs at "
            f"that rate; {FORKED_S:g} s of start-up a run, {FRESH_S:g} s on a GPU. Memory: of one process, beside what the "
            "libraries take.",
            "dim",
        )
    reasons: dict[str, list[str]] = {}
    for one in left:
        if one.unmeasured:
            reasons.setdefault(one.unmeasured, []).append(one.trial.label)
    for reason, labels in reasons.items():
        say(f"No device time for {labels[0]}{_others(labels)}: {reason}", "yellow")
    impossible: dict[str, list[str]] = {}
    for one in forecasts:
        if one.problem:
            impossible.setdefault(one.problem, []).append(one.trial.label)
    for problem, labels in list(impossible.items())[:NAMED]:
        say(f"Cannot run: {labels[0]}{_others(labels)}: {problem}", "bold red")
    if len(impossible) > NAMED:
        say(f"… and {len(impossible) - NAMED} more reasons.", "bold red")


def _others(labels: Sequence[str]) -> str:
    return f" and {len(labels) - 1} more" if len(labels) > 1 else ""


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _reason(error: BaseException) -> str:
    """The cause in one line, without Hydra's wrapping."""
    while type(error).__name__ == "InstantiationException" and error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"a positive number, as 4e13, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
