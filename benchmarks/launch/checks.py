"""What is known of a trial before it starts: refused, finished, stale, or not possible on this machine."""

import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.config.own_folders import given_parts
from benchmarks.config.trial import PLACES, ConfigurationError, Impossible, Trial, differing, differing_keys, flatten
from benchmarks.records import files
from benchmarks.records.code_version import made_by_other_code
from benchmarks.records.hardware import cores, gpus, on_gpu
from benchmarks.records.read_record import read_record

# Keys of how a trial is run; with another of the others it has another folder.
HOW = tuple(key for key in PLACES if key not in ("mode", "output_root") and not key.startswith("data."))

OF_SWEEP = (  # keys of which a sweep has one value
    *("launch.workers", "launch.fail_fast", "launch.budget", "launch.price_per_device_hour", "cluster.executor"),
)
OF_TRAINING = (  # the trainer's keys that do nothing in a test
    *("limit_train_batches", "max_train_flops", "max_train_seconds", "max_train_joules", "cuda_graph"),
    *("accumulate_grad_batches", "gradient_checkpointing", "ema_decay", "on_out_of_memory"),
)


def is_finished(trial: Trial) -> bool:
    """Whether the trial has its result, made by code that is new enough for this call."""
    try:
        record = read_record(str(trial.directory / files.RECORD), {})
        if record["status"] != "ok":
            return False
        tested, path = (record.get("protocol") or {}).get("weights"), trial.config["weights"]
        if tested and path is not None and tested.get("sha256") != files.sha256_of(Path(path)):
            return False
    except (OSError, ValueError):
        return False
    return not _runs_again(trial, record)


def _runs_again(trial: Trial, record: dict[str, Any]) -> bool:
    """Whether this call replaces a finished run, as made by other code."""
    return trial.config["launch"]["rerun"] == "stale" and made_by_other_code(record)


def is_stale(record: dict[str, Any]) -> bool:
    """Whether a finished run was made by other training code than this."""
    return record["status"] == "ok" and made_by_other_code(record)


def refusal(trial: Trial) -> str | None:
    """Return why a trial must not start on any machine, in one line; None if it may."""
    config, trainer = trial.config, trial.config["trainer"]
    if trainer["max_epochs"] != config["recipe"]["epochs"]:
        return f"trainer.max_epochs follows recipe.epochs: set recipe.epochs={trainer['max_epochs']}"
    data = config["data"]
    if config["recipe"].get("backbone_weights") is not None and data["task"] != "detection":
        return f"recipe.backbone_weights is of a detector's backbone, and data={data['name']} is for {data['task']}"
    if data["num_classes"] < 2 and data["task"] != "detection":
        background = ", the background one of them" if data["task"] == "segmentation" else ""
        return f"data.num_classes is 2 or more for {data['task']}{background}, got {data['num_classes']}"
    if problem := _drawn_for_none(trial):
        return problem
    if trainer["precision"] in ("bf16-true", "16-true") and data["task"] == "detection":
        instead = f"{trainer['precision'].removesuffix('true')}mixed"
        return (
            f"trainer.precision={trainer['precision']} would round the edges of boxes: {instead} keeps them in 32 bits"
        )
    if config["mode"] == "train" and (problem := _not_divided(config)):
        return problem
    if config["mode"] == "test" and config["weights"] is not None and not Path(config["weights"]).is_file():
        return (
            f"weights={config['weights']}: {files.weights_of_run(Path(config['weights'])) or 'there is no such file'}"
        )
    if trainer["compile"] and trainer["gradient_checkpointing"]:
        return "trainer.compile and trainer.gradient_checkpointing exclude each other: compiled, stages are one graph"
    if trainer.get("cuda_graph") and (problem := _not_captured(config)):
        return problem
    return _other_run(trial) or _unreadable_result(trial)


def _drawn_for_none(trial: Trial) -> str | None:
    """Return which override is of images drawn for a part that has a folder of its own; None if none is."""
    data = trial.config["data"]
    drawn = {f"data.{part}_{kind}": part for part in ("val", "test") for kind in ("count", "fraction")}
    asked = [key for key in drawn if key in trial.overrides]
    if "folder" not in data or not asked:  # the key of data of one's own
        return None
    given = given_parts(data["folder"], data.get("annotations", ""))
    said = [f"leave out {key}: {data['root']} has the images of {drawn[key]}" for key in asked if drawn[key] in given]
    return next(iter(said), None)


def _not_divided(config: dict[str, Any]) -> str | None:
    """Return why a batch of training cannot be shared by the processes, and by the parts of each; None if it can."""
    trainer, batch = config["trainer"], config["recipe"]["batch_size"]
    processes, parts = trainer["devices"] * trainer["num_nodes"], trainer["accumulate_grad_batches"] or 1
    if batch % processes:
        fits = [n for n in range(1, batch + 1) if batch % n == 0 and n <= 2 * processes]
        return f"recipe.batch_size={batch} cannot be divided among {processes} processes; {fits} would do"
    share = batch // processes
    if share % parts:
        fits = [n for n in range(1, share + 1) if share % n == 0]
        return f"trainer.accumulate_grad_batches divides each process's {share} images, got {parts}; {fits} would do"
    return None


def _not_captured(config: dict[str, Any]) -> str | None:
    """Return what a run asks for that CUDA graphs do not hold: parts of a batch, a second forward pass, other processes."""
    trainer = config["trainer"]
    reasons = {
        "trainer.compile=true": trainer["compile"],
        "trainer.gradient_checkpointing=true": trainer["gradient_checkpointing"],
        "model.memory_efficient=true": config["model"].get("memory_efficient"),
        "trainer.accumulate_grad_batches above 1": (trainer["accumulate_grad_batches"] or 1) > 1,
        "trainer.on_out_of_memory=accumulate": trainer["on_out_of_memory"] == "accumulate",
        "several processes": trainer["devices"] * trainer["num_nodes"] > 1,
    }
    other = next((name for name, asked in reasons.items() if asked), None)
    return other and f"trainer.cuda_graph=true is for one process and a whole batch in one pass: not with {other}"


def _other_run(trial: Trial) -> str | None:
    """Return in one line why the run in a trial's folder is in its way, another run or a damaged one; None if none is."""
    try:
        there = files.read_config(trial.directory)
        differing = differing_keys(there, trial.config)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"cannot read {trial.directory / files.CONFIG}: {error.strerror}; move the run's folder away"
    except ValueError as error:
        return f"{error}; move the run's folder away"
    if "weights" in differing and _is_same_path(*differing["weights"]):
        del differing["weights"]
    if differing:
        other = "data.name or output_root" if any(key.startswith("data.") for key in differing) else "output_root"
        causes: dict[tuple[str, str], str] = {}
        for key, values in differing.items():
            # In order: data.num_classes comes before model.num_classes, which follows it.
            line = f"{key}: {values[0]!r} there, {values[1]!r} here"
            causes.setdefault((key.rpartition(".")[2], repr(values)), line)
        keys = ", ".join(causes.values())
        return f"{trial.directory} holds another configuration ({keys}); choose another {other} or move it away"
    data = there.get("data")
    root, asked = data.get("root") if isinstance(data, dict) else None, trial.config["data"].get("root")
    if not _is_same_path(root, asked):
        return (
            f"{trial.directory} holds a run of data.root={root}, and this asks for data.root={asked}; choose another "
            f"data.name or output_root. Where these are the same images, moved: data.root in its {files.CONFIG}"
        )
    return None


def _unreadable_result(trial: Trial) -> str | None:
    """Return in one line why no report reads the record of a finished run that is to stay; None for any other."""
    path = trial.directory / files.RECORD
    try:
        read_record(str(path), {})
    except (OSError, ValueError) as error:
        record = files.read_json(path) or {}
        if record.get("status") == "ok" and not _runs_again(trial, record):
            return f"{path}: {error}; mend it, or move the run's folder away to train again"
    return None


def _is_same_path(one: object, other: object) -> bool:
    return one == other or os.path.realpath(str(one)) == os.path.realpath(str(other))


def missing_resources(trial: Trial, trials_at_a_time: int = 1, machines: int = 1) -> str | None:
    """Return in one line what this machine, one of ``machines``, lacks for a trial; None if it can run it beside the others."""
    config, trainer = trial.config, trial.config["trainer"]
    if trainer["num_nodes"] > machines:
        return f"trainer.num_nodes={trainer['num_nodes']} needs cluster=slurm or cluster=hosts: this is one machine"
    gpu = on_gpu(config)
    if trainer["sync_batchnorm"] and not gpu:
        return "trainer.sync_batchnorm=true needs several GPUs (PyTorch has no synchronised batch-norm on a CPU)"
    if trainer.get("tf32") and not gpu:
        return "trainer.tf32=true needs an NVIDIA GPU since Ampere: a CPU has no TF32"
    if trainer.get("cuda_graph") and not gpu:
        return "trainer.cuda_graph=true needs an NVIDIA GPU: a CPU replays no graph"
    if trainer["precision"] == "16-mixed" and not gpu:
        return "trainer.precision=16-mixed needs a GPU: a CPU's mixed precision is bf16-mixed"
    kind, available = ("GPUs", gpus()) if gpu else ("CPU cores", cores())
    each, shares = trainer["devices"], config["cluster"]["oversubscribe"]
    wanted = each if gpu and shares else each * trials_at_a_time  # trials share GPUs, the processes of one do not
    if wanted > available and (gpu or not shares):
        asked = f"trainer.devices={each}"
        asked += f" for each of launch.workers={trials_at_a_time}" if wanted > each else ""
        allows = "lets trials share a GPU" if gpu else "allows more processes than cores"
        hint = "" if gpu and each > available else f"; cluster.oversubscribe=true {allows}"
        return f"{asked}, but this machine has {available} {kind}{hint}"
    return None


def check_mode(trials: Iterable[Trial | Impossible]) -> None:
    """Raise ConfigurationError for a sweep with both modes at once, one of ``mode=test`` and ``weights`` without the other, or
    seeds and options of training where nothing is drawn and trained."""
    configs = [trial.config for trial in trials if isinstance(trial, Trial)]
    modes = {config["mode"] for config in configs}
    if len(modes) > 1:
        raise ConfigurationError("a sweep has mode=train or mode=test, not both")
    for config in configs:
        weights = config["weights"]
        if modes != {"test"} and weights is not None:
            raise ConfigurationError(
                f"weights={weights} needs mode=test: training starts from the recipe's own weights"
            )
        if modes == {"test"} and weights is None:
            raise ConfigurationError(
                "mode=test needs weights=FILE: a run's checkpoint, or what `python -m benchmarks weights import` writes"
            )
        if modes == {"test"} and config["seed"] != 0:
            raise ConfigurationError(
                f"mode=test draws nothing at random: leave out seed={config['seed']}, it repeats nothing"
            )
        of_training = [f"trainer.{key}" for key in OF_TRAINING if config["trainer"].get(key)]
        if modes == {"test"} and of_training:
            raise ConfigurationError(
                f"mode=test trains nothing: leave out {', '.join(of_training)}, or set to null what an experiment sets"
            )


def check_distinct(trials: Iterable[Trial | Impossible]) -> None:
    """Raise ConfigurationError where trials differ only in how they are run, since the second would be taken for finished, or
    in what a sweep has one of."""
    by_directory: dict[Path, Trial] = {}
    composed = [trial for trial in trials if isinstance(trial, Trial)]
    for trial in composed:
        other = by_directory.setdefault(trial.directory, trial)
        keys = [] if other.config == trial.config else differing(flatten(other.config), flatten(trial.config))
        keys = [key for key in keys if key != "row"]
        if keys and all(key.startswith(HOW) for key in keys):
            raise ConfigurationError(
                f"{', '.join(keys)}: no part of what a run computes, so these trials are one run; give one value, or each its "
                "own output_root"
            )
    for key in OF_SWEEP:
        group, _, name = key.partition(".")
        if any(trial.config[group][name] != composed[0].config[group][name] for trial in composed):
            raise ConfigurationError(f"{key.removesuffix('.executor')}: a sweep has one; give it on the command line")


def check_mirrors(trials: Iterable[Trial | Impossible]) -> None:
    """Raise ConfigurationError where a mirror's package, which is named like it and like its extra, is not installed."""
    loggers = [trial.config["logger"] for trial in trials if isinstance(trial, Trial)]
    names = dict.fromkeys(name for logger in loggers for name, node in logger.items() if isinstance(node, dict))
    for name in names:
        if find_spec(name) is None:
            raise ConfigurationError(f"logger={name} needs {name}: pip install -e '.[{name}]'")
