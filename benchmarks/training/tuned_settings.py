"""What was measured as fastest, by machine and versions: ``<output_root>/tuning/<machine>.json``. Imports no torch."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.records.files import read_json
from benchmarks.records.hardware import cores, on_gpu
from benchmarks.records.locks import update_json
from benchmarks.training.default_settings import complete, exact_precision
from benchmarks.units import one_line

STEP_OPTIONS = (
    *("compile", "cuda_graph", "channels_last", "tf32"),
    *("gradient_checkpointing", "accumulate_grad_batches", "ema_decay"),
)

FOLDER = "tuning"
CHOSEN = "tuned.json"  # in a run's directory: it goes on with what it started with
WORTH = 1.03  # times as many images per second: below, the plain setting stays, as timings scatter
PLAIN: dict[str, Any] = {"precision": "32-true", "tf32": None, "channels_last": False, "compile": False}
SETTING = tuple(PLAIN)
LOADING = ("loader_workers", "eval_batch_size")
ROWS = {  # lists of what is kept of a network: what each row of them says, at which rate
    "settings": (SETTING, "train_images_per_s"),
    "workers": (("workers",), "train_images_per_s"),
    "batches": (("batch",), "forward_images_per_s"),
}


def key_of(specification: Mapping[str, Any]) -> str:
    """Return the key of a measurement: network, images, a process's batch, what a step does beside, on a CPU its threads."""
    conditions = {name: specification[name] for name in ("model", "image", "batch", "gpu")}
    conditions["threads"] = None if specification["gpu"] else specification["threads"]
    conditions |= {
        name: specification["options"].get(name) for name in ("gradient_checkpointing", "accumulate_grad_batches")
    }
    conditions["averages"] = specification["options"].get("ema_decay") is not None
    conditions |= {"cuda_graph": True} if specification["options"].get("cuda_graph") else {}
    return hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:16]


def path_of(root: str | Path, machine: Mapping[str, Any]) -> Path:
    """Return the machine's file."""
    name = f"{machine['device_name']} {machine['cores']} cores"
    return Path(root, FOLDER, re.sub(r"\W+", "_", name).strip("_") + ".json")


def keep(root: str | Path, machine: Mapping[str, Any], key: str, entry: Mapping[str, Any]) -> Path:
    """Add what was measured of a network, and drop what other versions measured in the same file; return the file."""

    def added(held: dict[str, Any]) -> dict[str, Any]:
        networks = _networks(held) if held.get("hardware") == machine else {}
        return {"hardware": dict(machine), "networks": networks | {key: dict(entry)}}

    path = path_of(root, machine)
    update_json(path, added)
    return path


def is_known(root: str | Path, key: str) -> bool:
    """Tell whether something was measured of a network on any machine."""
    kept = (read_json(path) or {} for path in Path(root, FOLDER).glob("*.json"))
    return any(key in _networks(one) for one in kept)


def _networks(held: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file holds by the keys of networks, empty where it holds something else."""
    networks = held.get("networks")
    return networks if isinstance(networks, dict) else {}


def find(root: str | Path, machine: Mapping[str, Any], key: str) -> tuple[dict[str, Any] | None, str | None]:
    """Return what was measured of a network on this machine, or None and the reason in one line, naming a file it ignores."""
    hint = "nothing is tuned; `python -m benchmarks tune` with the same model and data measures it"
    path = path_of(root, machine)
    damaged = f"{path} is damaged and ignored: {hint}"
    held = read_json(path)
    if held is None:
        others = sorted(other.name for other in path.parent.glob("*.json"))
        if path.exists():
            return None, damaged
        return None, f"{path.parent / others[0]} is of another machine and ignored: {hint}" if others else hint
    there, networks = held.get("hardware", {}), held.get("networks", {})
    if not isinstance(there, dict) or not isinstance(networks, dict):
        return None, damaged
    differing = [
        f"{name} {there.get(name)} there, {here} here" for name, here in machine.items() if there.get(name) != here
    ]
    if differing:
        return None, f"{path} is of other hardware or versions ({'; '.join(differing)}) and ignored: {hint}"
    if key not in networks:
        return None, f"{path} has nothing of this network, batch and number of threads: {hint}"
    return (networks[key], None) if _is_whole(networks[key]) else (None, damaged)


def _is_whole(entry: Any) -> bool:
    """Tell whether what a file, perhaps from others, holds of a network has all that ``choice`` reads."""

    def is_rate(value: Any) -> bool:
        return value is None or (isinstance(value, int | float) and value > 0)

    def is_row(row: Any, names: tuple[str, ...], rate: str) -> bool:
        if not isinstance(row, dict) or not {*names, rate} <= row.keys():
            return False
        return is_rate(row[rate]) and isinstance(row.get("start_s"), int | float | None)

    return (
        isinstance(entry, dict)
        and all(is_rate(entry.get(name)) for name in ("epoch_images", "train_flops_per_sample"))
        and all(
            isinstance(entry.get(part), list) and all(is_row(row, *columns) for row in entry[part])
            for part, columns in ROWS.items()
        )
    )


def pinned_by(config: dict[str, Any]) -> dict[str, Any]:
    """Return the values of ``SETTING`` that a configuration sets, or that go with what it sets."""
    trainer = config["trainer"]
    trainer = {**trainer, "precision": exact_precision(trainer["precision"], on_gpu(config))}
    pinned = {name: trainer[name] for name in SETTING if trainer[name] not in (None, PLAIN["precision"])}
    if trainer["gradient_checkpointing"] or trainer.get("cuda_graph"):
        pinned["compile"] = False
    return pinned


def fixed(pinned: Mapping[str, Any], allow_reduced: bool) -> dict[str, Any]:
    """Return the values that every setting of a choice has: the ``pinned`` ones, and of precision and TF32, unless reduced
    precision is allowed, the plain ones."""
    exact = {} if allow_reduced else {name: PLAIN[name] for name in ("precision", "tf32")}
    return exact | dict(pinned)


def choose(
    rows: Iterable[Mapping[str, Any]], allow_reduced: bool, pinned: Mapping[str, Any], images: float | None = None
) -> dict[str, Any]:
    """Return the setting of the row that trains ``images`` in the shortest time, its start included.

    The plain setting stays where the gain is small. TF32 and bfloat16 need ``allow_reduced``.

    Args:
        rows: measurements, with the keys of ``SETTING``, ``train_images_per_s``, None where it did not run, and where it is
            known ``start_s``, what the first steps take more than others, as they compile.
        pinned: values of ``SETTING`` that are not to be changed.
        images: that a process trains on in all; None where that is not known: the start is not counted.
    """
    plain, kept = PLAIN | dict(pinned), fixed(pinned, allow_reduced)

    def seconds(row: Mapping[str, Any]) -> float:
        start_s = 0.0 if images is None else row.get("start_s") or 0.0
        return start_s + (images or 1) / row["train_images_per_s"]

    candidates = [row for row in rows if row.get("train_images_per_s") is not None and kept.items() <= row.items()]
    if not candidates:
        return plain
    best = min(candidates, key=seconds)
    base = next((row for row in candidates if all(row[name] == plain[name] for name in SETTING)), None)
    if base is not None and seconds(base) < WORTH * seconds(best):
        best = base
    return {name: best[name] for name in SETTING}


def images_of(config: Mapping[str, Any], entry: Mapping[str, Any]) -> float | None:
    """Return how many images a process trains on, under a budget of seconds in the plain setting; None where what was measured
    does not say, as of other data, and under a budget of joules."""
    per_epoch, trainer = entry.get("epoch_images"), config["trainer"]
    if per_epoch is None or entry.get("data") != config["data"]["name"] or trainer.get("max_train_joules") is not None:
        return None
    processes = trainer["devices"] * trainer["num_nodes"]
    if (flops := trainer.get("max_train_flops")) is not None:
        of_image = entry.get("train_flops_per_sample")
        return flops / of_image / processes if of_image else None
    if (seconds := trainer.get("max_train_seconds")) is not None:
        rate = next((row["train_images_per_s"] for row in entry["settings"] if PLAIN.items() <= row.items()), None)
        return rate and seconds * rate
    if (batches := trainer["limit_train_batches"]) is not None:
        per_epoch = min(per_epoch, batches * config["recipe"]["batch_size"])
    return per_epoch * trainer["max_epochs"] / processes


def choose_least(rows: Sequence[Mapping[str, Any]], name: str, pace: str) -> int | None:
    """Return the least value of the column ``name`` with nearly the most images per second, by the column ``pace``.

    Of loader workers: by "train_images_per_s". Of evaluation batches: by "forward_images_per_s". None where none was measured.
    """
    measured = [row for row in rows if row.get(pace) is not None]
    most = max((row[pace] for row in measured), default=0.0)
    return min((row[name] for row in measured if row[pace] * WORTH >= most), default=None)


def choice(config: dict[str, Any], entry: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Return what ``trainer=auto`` sets where the configuration leaves it open: arguments of trainer and datamodule."""
    if entry is None:
        return {"trainer": {}, "datamodule": {}}
    pinned, allow_reduced = pinned_by(config), bool(config["trainer"]["allow_reduced_precision"])
    measured = [row for row in entry["settings"] if row["train_images_per_s"] is not None]
    setting = choose(measured, allow_reduced, pinned, images_of(config, entry))
    if not any(setting.items() <= row.items() for row in measured):
        setting = pinned  # as of a precision that was not measured: what is open stays as it is without trainer=auto
    loading: dict[str, Any] = {}
    workers = choose_least(entry["workers"], "workers", "train_images_per_s")
    batch = choose_least(entry["batches"], "batch", "forward_images_per_s")
    if workers is not None and config["cluster"]["loader_workers"] is None:
        loading["loader_workers"] = workers
    if batch is not None and config["data"]["task"] == "classification":  # images of one size
        loading["eval_batch_size"] = batch
    return {"trainer": setting, "datamodule": loading}


def choice_on(config: dict[str, Any], machine: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], str | None]:
    """Return what ``trainer=auto`` sets on a machine, as ``choice``, and why nothing was found, in one line or None."""
    entry, message = find(config["output_root"], machine, key_of(specification(config)))
    return choice(config, entry), message


def check(chosen: Mapping[str, Any]) -> None:
    """Raise ValueError for what ``choice`` does not choose: its files may come from others, and the trainer is built of it."""
    for part, names in {"trainer": SETTING, "datamodule": LOADING}.items():
        values = chosen.get(part)
        if not isinstance(values, dict) or not all(
            key in names and isinstance(value, str | int | None) and "${" not in str(value)
            for key, value in values.items()
        ):
            raise ValueError(
                f"trainer=auto: {CHOSEN} of the run, or {FOLDER}/ of output_root, holds what `python -m benchmarks tune` "
                f"does not write: {part} is {one_line(repr(values))[:80]}; remove it"
            )


def unmeasurable(config: Mapping[str, Any]) -> str | None:
    """Return why the training steps of a run cannot be measured by themselves; None if nothing."""
    if config["data"]["task"] != "detection":
        return None
    return "steps of a detector are not measured by themselves (its runs record images_per_s)"


def specification(config: dict[str, Any], tuned: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """Return what defines a training step of one process of a run, for ``benchmarks.performance.step_time``; ``tuned`` are
    arguments of the trainer that ``choice`` sets."""
    data, gpu = config["data"], on_gpu(config)
    trainer, _ = complete(config, config["trainer"] | tuned, gpu)
    share = cores() // (trainer["devices"] * (1 if gpu else config["launch"]["workers"]))
    return {
        "model": config["model"],
        "optimizer": config["recipe"]["optimizer"],
        "image": [data["in_channels"], *data["image_size"]],
        "batch": config["recipe"]["batch_size"] // (trainer["devices"] * trainer["num_nodes"]),
        "gpu": gpu,
        "precision": trainer["precision"],
        "threads": config["cluster"]["threads_per_process"] or max(1, share),
        "options": {name: trainer[name] for name in STEP_OPTIONS if trainer.get(name) is not None},
    }
