"""One rank of one run: train, evaluate, record.

``python -m benchmarks.training.rank DIRECTORY`` reads ``config.yaml`` there.
"""

import errno
import json
import os
import re
import signal
import sys
import time
import traceback
import warnings
from contextlib import suppress
from datetime import timedelta
from math import ceil
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from pytorch_lightning.strategies import DDPStrategy

from benchmarks.complexity.certificates import check
from benchmarks.complexity.counting import measure
from benchmarks.config.trial import config_hash
from benchmarks.records import files
from benchmarks.records.hardware import hardware
from benchmarks.records.locks import RANKS, Lock
from benchmarks.training import tuned_settings
from benchmarks.training.budget import Budget, take_budget
from benchmarks.training.checkpoints import (
    AtomicCheckpointIO,
    Averaging,
    Checkpoints,
    check_fits,
    newest_intact,
    tidy,
    weights_sha256,
)
from benchmarks.training.environment import code, environment
from benchmarks.training.history import Preparing, TestProgress, Tracker
from benchmarks.training.options import TrainingOptions
from benchmarks.training.out_of_memory import OutOfMemory, largest_evaluation_batch
from benchmarks.training.recomputation import recomputed_macs
from benchmarks.training.stopping import Interrupted, StopRequest, silence
from benchmarks.training.tuned_settings import specification
from benchmarks.training.weights import Weights

CONFUSION_UP_TO = 100  # classes; larger matrices stay out of the record
PEER_FIRST_S = 1.0  # so that the agent meets the rank that was killed before those that only lost it
# What gloo, NCCL and torch's store say when a peer is gone or silent.
PEER_LOST = re.compile(r"gloo|NCCL|closed by peer|reset by peer|broken pipe|timed out", re.IGNORECASE)


def main(directory: Path) -> int:
    """Runs this process's rank; returns the exit code. Every outcome is in the record."""
    config = yaml.safe_load((directory / files.CONFIG).read_text(encoding="utf-8"))
    started = json.loads((directory / files.RECORD).read_text(encoding="utf-8"))
    if _rank() == 0 and (started["status"] != "running" or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))):
        started = files.reopen(directory, None)
    stop = StopRequest(config["launch"]["collective_timeout_s"])
    run = RankRun(directory, config, started, stop)
    quiet()
    lock = Lock.share(directory / RANKS)  # as long as this process lives, no other start of the trial may write
    try:
        stop.listen()
        run.execute()
    except Interrupted as signalled:
        return run.close("interrupted", f"interrupted by {signalled}", 128 + signal.SIGTERM)
    except Exception as raised:
        traceback.print_exc()
        error = (run.memory and run.memory.error) or raised
        reason = describe(error)
        report_failure(directory, reason, error)
        code = run.close("failed", reason, 1)
        if is_of_a_peer(error):
            with suppress(Interrupted):
                time.sleep(PEER_FIRST_S)
        return code
    finally:
        lock.release()
    return run.close("ok", None, 0)


class RankRun:
    """The steps of a run, and what of it is to be recorded.

    Args:
        directory: the run's.
        config: the resolved configuration.
        record: as the launcher has started it.
        stop: what asks it to stop.
    """

    def __init__(self, directory: Path, config: dict[str, Any], record: dict[str, Any], stop: StopRequest) -> None:
        self.directory = directory
        self.config = config
        self.record = record
        self.stop = stop
        self.mirror: Any = None
        self.budget: Budget | None = None
        self.tracker: Tracker | None = None
        self.trainer: pl.Trainer | None = None
        self.memory: OutOfMemory | None = None
        self.recomputed_macs = 0  # of one training image

    def execute(self) -> None:
        """Trains, unless ``mode=test``, from the start or from the last checkpoint; tests; fills in the record."""
        config, record = self.config, self.record
        weights = Weights.read(Path(config["weights"])) if config["mode"] == "test" else None
        if weights is not None:
            weights.check_network(config["module"]["net"])
        torch.set_num_threads(config["cluster"]["threads_per_process"])
        pl.seed_everything(config["seed"], verbose=False)
        arguments, tuned = self._tuned()
        datamodule = instantiate(config["datamodule"] | tuned)
        with datamodule.preparation_told_to(Preparing(self.directory).tell):
            datamodule.setup("fit")
        module = instantiate(config["module"])
        module.net.check_image_size(*config["data"]["image_size"])
        complexity = measure(module.net, self._image())
        check(config["name"], config["data"]["num_classes"], complexity)
        manifest = datamodule.manifest()

        recipe, switches = config["recipe"], TrainingOptions.take(arguments)
        switches.check(_device(arguments["accelerator"]), str(arguments["precision"]))
        if switches.gradient_checkpointing:
            self.recomputed_macs = recomputed_macs(module.net, complexity)
        switches.apply(module.net)
        if switches.compile:
            Preparing(self.directory).tell("compiling in the first step", 0, 0)
        module.micro_batches = switches.accumulate_grad_batches or 1
        step_flops = complexity.train_flops_per_sample * recipe["batch_size"]
        budget = take_budget(arguments, step_flops, recipe["epochs"], self.stop)
        directory, every_steps = self.directory / "checkpoints", config["launch"]["checkpoint_every_steps"]
        callbacks: list[pl.Callback]
        if weights is None:
            tracker = Tracker(
                self.directory, complexity.train_macs_per_sample, recipe["batch_size"], config["seed"], budget
            )
            checkpoints = Checkpoints(directory, f"val/{module.primary}", self.stop, every_steps)
            averaging = [] if switches.ema_decay is None else [Averaging(decay=switches.ema_decay)]
            callbacks = [*averaging, *([] if budget is None else [budget]), tracker, checkpoints]
            self.tracker, self.budget = tracker, budget
        else:  # what their training has cost is not known
            budget, callbacks = None, [TestProgress(self.directory)]
        self.memory = OutOfMemory(record, switches.on_out_of_memory == "accumulate")
        callbacks.insert(0, self.memory)
        world_size = config["trainer"]["devices"] * config["trainer"]["num_nodes"]
        timeout = timedelta(seconds=config["launch"]["collective_timeout_s"])
        trainer = instantiate(
            arguments,
            strategy=DDPStrategy(timeout=timeout) if world_size > 1 else "auto",
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO(module)],
            logger=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=str(self.directory),
        )
        silence(trainer)
        self.trainer = trainer
        if trainer.world_size != world_size:
            raise RuntimeError(f"{world_size} processes were asked for, {trainer.world_size} were started")
        device = trainer.strategy.root_device
        if device.type == "cuda" and config["data"]["task"] == "classification" and "eval_batch_size" not in tuned:
            start = datamodule.eval_batch_size
            most = ceil(max(manifest["counts"][split] for split in ("val", "test")) / world_size)
            if config["data"].get("loading") == "files":  # loader workers hold several batches in the machine's memory
                most = max(start, recipe["batch_size"] // world_size)
            datamodule.eval_batch_size = largest_evaluation_batch(trainer, module, self._image(), start, most)
            torch.cuda.reset_peak_memory_stats(device)
        record |= {
            "config_hash": config_hash(config),
            "code": code(),
            "environment": environment(device),
            "parallel": {
                "world_size": world_size,
                "devices": config["trainer"]["devices"],
                "num_nodes": config["trainer"]["num_nodes"],
                "strategy": "ddp" if world_size > 1 else "single",
                "backend": ("nccl" if device.type == "cuda" else "gloo") if world_size > 1 else None,
                "sync_batchnorm": config["trainer"]["sync_batchnorm"],
                "precision": trainer.precision,
                "global_batch_size": config["recipe"]["batch_size"],
                "tuned": bool(config["trainer"].get("tuned")),
                **switches.as_dict(device),
                **tuned,
                "eval_batch_size": datamodule.eval_batch_size,
            },
            "dataset": manifest,
            "counts": manifest["counts"],
            "baselines": manifest["baselines"],
            "complexity": complexity.as_dict(),
            "protocol": {
                "checkpoint": "last" if weights is None else "imported",
                "weights": None if weights is None else weights.origin,
                "split": "test",
                "metric": f"test/{module.primary}",
                "metric_label": f"test {module.label}",
                "definitions": module.definitions,
                "budget": None if budget is None else budget.as_dict(),
            },
        }
        checkpoint = None
        if weights is None:
            checkpoint = self._resume(directory, module)
        else:
            weights.load_into(module.net)
        if _rank() == 0:
            tidy(directory, checkpoint)
            files.write_atomic(self.directory / files.LAYERS, complexity.layers_csv())
        self._write()
        if _rank() == 0 and config["logger"]["mode"] != "none":
            self.mirror = instantiate(config["logger"], directory=self.directory)
            record["wandb"] = {"id": record["run_id"], "mode": self.mirror.mode}
            self._write()

        if weights is None:
            trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
        trainer.test(module, datamodule=datamodule, verbose=False)
        tested = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("test/")}
        views = [f"test/n_{view}" for view in config["data"].get("test_views", ())]
        counted = {name: int(tested[name]) for name in ("test/n", *views)}
        for name, count in counted.items():
            if count != manifest["counts"]["test"]:
                raise RuntimeError(f"{name}: tested {count} images of {manifest['counts']['test']}")
        record["metrics"] = tested | counted
        if module.confusion is not None and len(module.confusion) <= CONFUSION_UP_TO:
            record["confusion"] = module.confusion.tolist()
        if module.examples and _rank() == 0:
            from benchmarks.training.pictures import write_pictures

            write_pictures(self.directory, module.examples, manifest["classes"])
        record["weights_sha256"] = weights_sha256(module.net.state_dict())

    def close(self, status: str, error: str | None, exit_code: int) -> int:
        """Writes the outcome, here and in the mirror; returns the exit code."""
        if _rank() != 0:
            return exit_code
        self.record |= {"status": status, "error": error, "finished": files.now()}
        if self.tracker is not None and self.trainer is not None:
            self.record["compute"] = self.tracker.totals(self.trainer)
            if self.recomputed_macs:
                again = 2 * self.recomputed_macs * self.tracker.samples_seen
                self.record["compute"]["hardware_train_flops"] = self.tracker.train_macs * 2 + again
            if self.budget is not None and "protocol" in self.record:
                self.record["protocol"]["budget"] = self.budget.as_dict()
        try:
            self._write()
        finally:
            signal.alarm(0)  # the mirror has its own bound
            if self.mirror is not None:
                self.record["wandb"]["mode"] = self.mirror.finish()
                self._write()
        return exit_code

    def _image(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        data = self.config["data"]
        return data["in_channels"], *data["image_size"]

    def _tuned(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The trainer's arguments, with ``trainer.tuned`` those that were measured as fastest on this machine, and what of the
        datamodule's is to be as measured. A run keeps what it has started with as long as it stays on its kind of machine."""
        config, arguments = self.config, dict(self.config["trainer"])
        if not arguments.get("tuned"):
            return arguments, {}
        machine = hardware(environment(_device(arguments["accelerator"])))
        kept = files.read_json(self.directory / tuned_settings.CHOSEN)
        if kept is None or kept["hardware"] != machine:
            entry, line = tuned_settings.find(
                config["output_root"], machine, tuned_settings.key_of(specification(config))
            )
            if line is not None:
                print(f"trainer=auto: {line}", file=sys.stderr)
            kept = {"hardware": machine, **tuned_settings.choice(config, entry)}
            if _rank() == 0:
                files.write_json(self.directory / tuned_settings.CHOSEN, kept)
        return arguments | kept["trainer"], kept["datamodule"]

    def _resume(self, directory: Path, module: pl.LightningModule) -> Path | None:
        """The checkpoint to go on from, None to start anew; what was found goes to the record."""
        path, checkpoint, wrong = newest_intact(directory)
        if path is not None:
            check_fits(path, checkpoint["state_dict"], module)
        if path is None and not wrong:
            return None
        resumption = {
            "at": files.now(),
            "step": checkpoint["global_step"] if path else 0,
            "checkpoint": path.name if path else None,
        }
        if wrong:
            resumption["reason"] = "; ".join([*wrong, f"going on from {path.name}" if path else "started anew"])
            print(resumption["reason"], file=sys.stderr)
        self.record["resumptions"] = [*self.record["resumptions"], resumption]
        return path

    def _write(self) -> None:
        if _rank() == 0:
            files.write_json(self.directory / files.RECORD, self.record)


def describe(error: BaseException) -> str:
    """The cause in one line, without Hydra's wrapping."""
    error = _unwrapped(error)
    if _is_full_disk(error):
        return "no space left on the disk; what was written before is intact"
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    return text if is_known(error) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def is_known(error: BaseException) -> bool:
    """Whether it is the program's own clear error, which would come again."""
    error = _unwrapped(error)
    known = ValueError | FileNotFoundError | ArithmeticError | ImportError | MemoryError
    return isinstance(error, known) or _is_full_disk(error)


def is_of_a_peer(error: BaseException) -> bool:
    """Whether another rank, gone or silent, is behind it."""
    return isinstance(error, RuntimeError) and (
        isinstance(error, torch.distributed.DistError) or PEER_LOST.search(str(error)) is not None
    )


def quiet() -> None:
    """Leaves out advice that does not apply here; the rest goes to the run's log."""
    import logging

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")  # small images live in memory
    warnings.filterwarnings("ignore", ".*It is recommended to use `self.log.*sync_dist=True.*")  # already synchronised
    warnings.filterwarnings("ignore", ".*The `srun` command is available on your system but is not used.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec.*")  # meant for Lightning, whose code it is


def _device(accelerator: str) -> torch.device:
    """What the trainer will take, of those that the suite's switches know."""
    gpu = accelerator in {"auto", "gpu", "cuda"} and torch.cuda.is_available()
    return torch.device("cuda" if gpu else "cpu")


def _rank() -> int:
    return int(os.environ.get("RANK", 0))


def _unwrapped(error: BaseException) -> BaseException:
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _is_full_disk(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno == errno.ENOSPC


def report_failure(directory: Path, reason: str, error: BaseException) -> None:
    """The first rank to fail names the cause; its peers only see a broken connection, and give way to a cause."""
    failure = {
        "error": reason,
        "rank": _rank(),
        "time": time.time(),
        "known": is_known(error),
        "peer": is_of_a_peer(error),
    }
    path = directory / files.FAILURE
    try:
        first = files.read_json(path)
        if first is None or (first.get("peer") and not failure["peer"]):
            files.write_json(path, failure)
    except OSError:
        pass


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
