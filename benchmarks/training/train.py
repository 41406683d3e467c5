"""One run: train a network, test it once, record both."""

import gc
import sys
from collections.abc import Sequence
from datetime import timedelta
from math import ceil, prod
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from pytorch_lightning.strategies import DDPStrategy

from benchmarks.complexity.cost import Complexity
from benchmarks.complexity.counting import check_image_size, measure
from benchmarks.complexity.reference_counts import check
from benchmarks.config.trial import config_hash
from benchmarks.config.trusted import targets
from benchmarks.records import files
from benchmarks.records.hardware import hardware
from benchmarks.records.outcomes import outcomes_of, write_outcomes
from benchmarks.records.record import Code, Dataset, Environment, Parallel, Protocol, Resumption
from benchmarks.training import COLLECTED_EVERY, tuned_settings
from benchmarks.training.backbone_weights import load_backbone
from benchmarks.training.batch_hooks import leave_out_profiler
from benchmarks.training.callbacks import testing_callbacks, training_callbacks
from benchmarks.training.checkpoints import (
    ORIGIN,
    AtomicCheckpointIO,
    check_fits,
    check_origin,
    newest_intact,
    tidy,
    weights_sha256,
)
from benchmarks.training.default_settings import complete
from benchmarks.training.environment import code, environment, process_rank
from benchmarks.training.open_run import OpenRun
from benchmarks.training.options import TrainingOptions
from benchmarks.training.out_of_memory import largest_evaluation_batch
from benchmarks.training.recomputation import recomputed_macs
from benchmarks.training.stopping import silence
from benchmarks.training.weights import Weights

CONFUSION_UP_TO = 100  # classes; larger matrices stay out of the record
SHARED_GPU = "trials shared the GPU (cluster.oversubscribe): the times are no measure of speed"
EVALUATED_AT_ONCE = 2_000  # images on a GPU: 16 runs that shared an H100 ran out of memory with all 10,000 of CIFAR-10


def train(run: OpenRun) -> None:
    """Train a run's network, from the start or from its last checkpoint, unless ``mode=test``; test it; fill in the record.

    Raises:
        ValueError: what is asked for is not possible here, in one line.
        Interrupted: the run was asked to stop.
    """
    gc.set_threshold(*COLLECTED_EVERY)
    config = run.config
    made_by = code(config)  # first: the files may change while data are loaded
    weights = imported_weights(config)
    run.start_mirror()
    torch.set_num_threads(config["cluster"]["threads_per_process"])
    pl.seed_everything(config["seed"], verbose=False)
    arguments, loading = tuned_arguments(config, run.directory)
    arguments, layout_note = complete(config, arguments, device_of(arguments["accelerator"]).type == "cuda")
    options = TrainingOptions.take(arguments)

    evaluation_batch_is_set = "data.eval_batch_size" in (run.record.overrides or {})
    if evaluation_batch_is_set:
        loading.pop("eval_batch_size", None)
    if weights is not None:
        loading = loading | weights.statistics(config["data"])
    data = load_data(run, loading)
    if weights is not None and (note := weights.check_classes(data.splits.classes)) is not None:
        run.record.notes = [*(run.record.notes or ()), note]
    module = build(run, layout_note)
    complexity = count_compute(run, module)
    check_images(config, data.training_shape(), module)
    check_evaluated(config, data.splits, module)
    apply_options(run, options, arguments, module, complexity)

    origin = {
        "code": made_by.training_sha256,
        "data": data.splits.checksum(["train", "val"]),  # a test image that is put right changes no training
        "threads": str(torch.get_num_threads()),
        "precision": str(arguments["precision"]),
    }
    if weights is None:
        callbacks = training_callbacks(run, options, arguments, module, complexity, origin)
    else:
        callbacks = testing_callbacks(run, options, arguments)
    trainer = run.trainer = make_trainer(run, arguments, callbacks, module)
    if "eval_batch_size" not in loading and not evaluation_batch_is_set:
        fit_evaluation_batch(config, trainer, module, data)

    describe_run(run, made_by, options, loading, complexity, module, data, weights)
    checkpoint = None
    if weights is None:
        checkpoint = resume(run, module, origin)
    else:
        weights.load_into(module.net)
    if process_rank() == 0:
        tidy(run.directory / files.CHECKPOINTS, checkpoint)
        files.write_atomic(run.directory / files.LAYERS, complexity.layers_csv())
    run.write()
    run.open_mirror()

    if weights is None:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    trainer.test(module, datamodule=data, verbose=False)
    record_test(run, trainer, module, data)


def load_data(run: OpenRun, loading: dict[str, Any]) -> Any:
    """Return the data module, set up for training; ``loading`` are the arguments of it that tuning or the weights set."""
    run.progress.prepare(f"loading {run.config['data']['name']}", 0, 0)
    data = instantiate(run.config["datamodule"] | loading)
    with data.reporting_preparation_to(run.progress.prepare):
        data.setup("fit")
    return data


def build(run: OpenRun, layout_note: str | None) -> Any:
    """Return the module with its network; a detector that is to train has its backbone's weights. Raises ValueError where the
    network does not take images of this size, or the backbone's weights are of another."""
    config = run.config
    module = instantiate(config["module"])
    check_image_size(module.net, *config["data"]["image_size"])
    training = config["mode"] != "test"
    backbone_note = load_backbone(config, module.net) if training else None
    schedule_note = constant_rate(config["recipe"], module) if training else None
    if notes := [note for note in (backbone_note, layout_note, schedule_note) if note is not None]:
        run.record.notes = [*(run.record.notes or ()), *notes]
    return module


def constant_rate(recipe: dict[str, Any], module: Any) -> str | None:
    """Return in words that training ends before its schedule has lowered the learning rate for the first time; else None."""
    epochs, scheduler = recipe["epochs"], recipe["scheduler"]
    drops = [f"recipe.scheduler.{key}={scheduler[key]}" for key in ("milestones", "step_size") if key in scheduler]
    if not drops or (rates := module.learning_rates(epochs))[-1] < max(rates):
        return None
    return f"the learning rate is never lowered: recipe.epochs={epochs} ends before {drops[0]}"


def count_compute(run: OpenRun, module: Any) -> Complexity:
    """Return the cost of the network. Raises ValueError where it has a published network's name and not its counts."""
    config = run.config
    run.progress.prepare("counting MACs", 0, 0)
    complexity = measure(module.net, image_shape(config))
    if complexity.warning and process_rank() == 0:
        print(f"{config['name']}: {complexity.warning}", file=sys.stderr)
    check(config["name"], config["data"]["num_classes"], complexity)
    return complexity


def imported_weights(config: dict[str, Any]) -> Weights | None:
    """Return the weights that ``mode=test`` evaluates, None for a run that trains. Raises ValueError for another network's."""
    if config["mode"] != "test":
        return None
    weights = Weights.read(Path(config["weights"]), trusted=[*targets(config["module"]["net"])])
    weights.check_network(config["module"]["net"])
    return weights


def tuned_arguments(config: dict[str, Any], directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the trainer's arguments, and those of the data module that tuning sets. Raises ValueError where what was measured,
    or what the run has started with, was altered.

    With ``trainer.tuned`` both are what was measured as fastest on this machine. A run keeps what it has started with as long
    as it stays on its kind of machine.
    """
    arguments = dict(config["trainer"])
    if not arguments.get("tuned"):
        return arguments, {}
    machine = hardware(environment(device_of(arguments["accelerator"])))
    chosen = files.read_json(directory / tuned_settings.CHOSEN)
    if chosen is None or chosen.get("hardware") != machine:
        choice, message = tuned_settings.choice_on(config, machine)
        if message is not None:
            print(f"trainer=auto: {message}", file=sys.stderr)
        chosen = {"hardware": machine, **choice}
        if process_rank() == 0:
            files.write_json(directory / tuned_settings.CHOSEN, chosen)
    tuned_settings.check(chosen)
    return arguments | chosen["trainer"], chosen["datamodule"]


def image_shape(config: dict[str, Any]) -> tuple[int, int, int]:
    """Return channels, height and width of an image."""
    return config["data"]["in_channels"], *config["data"]["image_size"]


def check_images(config: dict[str, Any], trained_on: Sequence[int], module: Any) -> None:
    """Raise ValueError where what is trained on, [C, H, W], is not that for which the network is built, and on which compute is
    counted; a detector's is counted for each batch. Likewise where masks are smaller than what the network puts out."""
    channels, *size = image_shape(config)
    if trained_on[0] != channels:
        raise ValueError(f"data.in_channels must be {trained_on[0]}, the channels of the images, got {channels}")
    what = {"classification": "the size of the images"}
    if config["mode"] != "test":
        what["segmentation"] = "the size that recipe.augment trains on, for which compute is counted"
    if config["data"]["task"] in what and list(trained_on[1:]) != size:
        raise ValueError(f"data.image_size must be {list(trained_on[1:])}, {what[config['data']['task']]}, got {size}")
    if "segmentation" in what and (elastic := config["recipe"]["augment"].get("elastic")):
        least, given = list(module.logits_shape(*size)[1:]), list(elastic["output_size"])
        if given[0] < least[0] or given[1] < least[1]:
            raise ValueError(
                f"recipe.augment.elastic.output_size must be at least {least}, what the network puts out, got {given}"
            )


def check_evaluated(config: dict[str, Any], splits: Any, module: Any) -> None:
    """Raise ValueError where the network does not take an image of segmentation that is to be evaluated whole."""
    if config["data"]["task"] != "segmentation" or module.tiles is not None:
        return
    validated = {} if config["mode"] == "test" else {"validation": splits.val}
    for name, split in (validated | {"test": splits.test}).items():
        for size in split.image_sizes():
            try:
                module.logits_shape(*size)
            except ValueError as error:
                raise ValueError(f"{name} images are evaluated whole, without recipe.tiles: {error}") from error


def device_of(accelerator: str) -> torch.device:
    """Return the device that the trainer will take, of those that the training options know."""
    gpu = accelerator in {"auto", "gpu", "cuda"} and torch.cuda.is_available()
    return torch.device("cuda" if gpu else "cpu")


def apply_options(
    run: OpenRun, options: TrainingOptions, arguments: dict[str, Any], module: Any, complexity: Complexity
) -> None:
    """Set up network and process by the training options. Raises ValueError where device or network do not allow one."""
    options.check(device_of(arguments["accelerator"]), str(arguments["precision"]))
    if options.gradient_checkpointing:
        run.recomputed_macs = recomputed_macs(module.net, complexity)
    options.apply(module.net)
    if options.compile:
        run.progress.prepare("compiling in the first step", 0, 0)
    module.micro_batches = options.accumulate_grad_batches or 1


def make_trainer(
    run: OpenRun, arguments: dict[str, Any], callbacks: Sequence[pl.Callback], module: pl.LightningModule
) -> pl.Trainer:
    """Return this rank's trainer. Raises RuntimeError where another number of processes was started than was asked for."""
    config = run.config["trainer"]
    world_size = config["devices"] * config["num_nodes"]
    timeout = timedelta(seconds=run.config["launch"]["collective_timeout_s"])
    trainer = instantiate(
        arguments,
        strategy=DDPStrategy(timeout=timeout) if world_size > 1 else "auto",
        callbacks=list(callbacks),
        plugins=[AtomicCheckpointIO(module)],
        logger=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(run.directory),
    )
    if trainer.precision == "64-true":
        # Lightning does so after it has loaded a checkpoint and copied the average, which would round them to 32 bits. Narrower
        # ones lose nothing, and keep an average of 32.
        trainer.precision_plugin.convert_module(module)
    silence(trainer)
    leave_out_profiler(trainer)
    if trainer.world_size != world_size:
        raise RuntimeError(f"{world_size} processes were asked for, {trainer.world_size} were started")
    return trainer


def fit_evaluation_batch(config: dict[str, Any], trainer: pl.Trainer, module: Any, data: Any) -> None:
    """Give the data module a quick batch of evaluation for classified images: on a GPU the largest that it holds."""
    device, pixels = trainer.strategy.root_device, prod(config["data"]["image_size"])
    if config["data"]["task"] != "classification":
        return
    if device.type != "cuda":
        # 64 of CIFAR-10's stay in a CPU's caches and take three quarters of the time of 500 at once.
        if pixels <= 32 * 32:
            data.eval_batch_size = min(data.eval_batch_size, 64 * 32 * 32 // pixels)
        return
    start, counts = data.eval_batch_size, data.manifest()["counts"]
    most = ceil(max(counts[split] for split in ("val", "test")) / trainer.world_size)
    if config["data"].get("loading") == "files":  # loader workers hold several batches in the machine's memory
        most = max(start, config["recipe"]["batch_size"] // trainer.world_size)
    most = max(start, min(most, EVALUATED_AT_ONCE))
    data.eval_batch_size = largest_evaluation_batch(trainer, module, image_shape(config), start, most)
    torch.cuda.reset_peak_memory_stats(device)


def describe_run(
    run: OpenRun,
    made_by: Code,
    options: TrainingOptions,
    loading: dict[str, Any],
    complexity: Complexity,
    module: Any,
    data: Any,
    weights: Weights | None,
) -> None:
    """Record all that is known of a run before it trains."""
    assert run.trainer is not None
    config, trainer, record = run.config["trainer"], run.trainer, run.record
    device, several = trainer.strategy.root_device, trainer.world_size > 1
    record.config_hash = config_hash(run.config)
    record.code = made_by
    record.environment = Environment(**environment(device))
    record.parallel = Parallel(
        world_size=trainer.world_size,
        devices=config["devices"],
        num_nodes=config["num_nodes"],
        strategy="ddp" if several else "single",
        backend=("nccl" if device.type == "cuda" else "gloo") if several else None,
        sync_batchnorm=config["sync_batchnorm"],
        precision=trainer.precision,
        global_batch_size=run.config["recipe"]["batch_size"],
        tuned=bool(config.get("tuned")),
        **options.as_dict(device),
        loader_workers=loading.get("loader_workers"),
        eval_batch_size=data.eval_batch_size,
    )
    record.dataset = Dataset(**data.manifest())
    shared = device.type == "cuda" and run.config["cluster"]["oversubscribe"] and run.config["launch"]["workers"] > 1
    notes = [*(record.notes or ()), *data.remarks(), *([SHARED_GPU] if shared else [])]
    record.notes = [*dict.fromkeys(notes)] or None  # once: ranks that start again find those of the start before
    record.counts, record.baselines = record.dataset.counts, record.dataset.baselines
    record.complexity = complexity.totals()
    record.protocol = Protocol(
        checkpoint="last" if weights is None else "imported",
        weights=None if weights is None else weights.origin,
        split="test",
        metric=f"test/{module.primary}",
        metric_label=f"test {module.label}",
        definitions=module.definitions,
        budget=None if run.budget is None else run.budget.spent(),
    )


def resume(run: OpenRun, module: pl.LightningModule, origin: dict[str, str]) -> Path | None:
    """Return the checkpoint to continue from, None to start anew; record which it is, what is wrong with newer ones, and that a
    CPU has another number of threads now, or the run another precision, as trainer.precision=auto has on another machine.
    Raises ValueError where it is of another network, other code or other images than ``origin`` says."""
    path, checkpoint, problems = newest_intact(run.directory / files.CHECKPOINTS)
    if path is not None:
        check_fits(path, checkpoint["state_dict"], module)
        check_origin(path, checkpoint, origin)
    if path is None and not problems:
        return None
    resumption = Resumption(
        at=files.now(), step=checkpoint["global_step"] if path else 0, checkpoint=path.name if path else None
    )
    reasons = [*problems, f"going on from {path.name}" if path else "started anew"] if problems else []
    before = origin | checkpoint.get(ORIGIN, {})
    if before["threads"] != origin["threads"] and device_of(run.config["trainer"]["accelerator"]).type == "cpu":
        reasons.append(
            f"{origin['threads']} threads now, {before['threads']} before: other bits than without the interruption"
        )
    if before["precision"] != origin["precision"]:
        reasons.append(f"{origin['precision']} now, as parallel.precision says, {before['precision']} before")
    if reasons:
        resumption.reason = "; ".join(reasons)
        print(resumption.reason, file=sys.stderr)
    run.record.resumptions.append(resumption)
    return path


def record_test(run: OpenRun, trainer: pl.Trainer, module: Any, data: Any) -> None:
    """Record the metrics of the test, its confusion matrix and pictures, and the checksum of the weights. Raises RuntimeError
    where not every test image was counted once."""
    manifest = data.manifest()
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("test/")}
    views = [f"test/n_{view}" for view in run.config["data"].get("test_views", ())]
    counts = {name: int(metrics[name]) for name in ("test/n", *views)}
    for name, count in counts.items():
        if count != manifest["counts"]["test"]:
            raise RuntimeError(f"{name}: tested {count} images of {manifest['counts']['test']}")
    run.record.metrics = metrics | counts
    if module.confusion is not None and len(module.confusion) <= CONFUSION_UP_TO:
        run.record.confusion = module.confusion.tolist()
    if module.examples and process_rank() == 0:
        from benchmarks.training.pictures import write_pictures

        write_pictures(run.directory, module.examples, manifest["classes"])
    if module.outcomes is not None and process_rank() == 0:
        metric_names = [name for name in module.definitions if name in {"top1_err", "top5_err"}]
        outcomes = outcomes_of(data.splits.checksum(["test"]), module.outcomes.numpy(), metric_names)
        write_outcomes(run.directory, outcomes)
    statistics = run.batch_statistics
    if statistics is not None and statistics.are_used(trainer, module.net) and run.record.protocol is not None:
        run.record.protocol.batch_norm_images = min(statistics.images, manifest["counts"]["train"])
    run.record.weights_sha256 = weights_sha256(module.net.state_dict())
