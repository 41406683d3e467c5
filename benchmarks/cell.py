"""One rank of one cell: train, evaluate, record. ``python -m benchmarks.cell DIRECTORY`` reads ``config.yaml`` there."""

import errno
import json
import os
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from benchmarks import record as files
from benchmarks.checkpoints import LAST, AtomicCheckpointIO, Checkpoints, weights_sha256
from benchmarks.complexity import measure
from benchmarks.configuration import config_hash
from benchmarks.environment import code, environment, peak_memory_bytes
from benchmarks.tracking import Interrupted, Tracker, logged_names

CONFUSION_UP_TO = 100  # classes; larger matrices stay out of the record


def main(directory: Path) -> int:
    """Runs this process's rank; returns the exit code. Every outcome is in the record."""
    config = yaml.safe_load((directory / files.CONFIG).read_text(encoding="utf-8"))
    started = json.loads((directory / files.RECORD).read_text(encoding="utf-8"))
    signal.signal(signal.SIGTERM, _terminate)
    quiet()
    run = CellRun(directory, config, started)
    try:
        run.execute()
    except (Interrupted, KeyboardInterrupt) as stop:
        return run.close("interrupted", f"interrupted by {stop or 'Ctrl-C'}", 128 + signal.SIGTERM)
    except Exception as error:
        traceback.print_exc()
        reason = describe(error)
        _first_failure(directory, reason)
        return run.close("failed", reason, 1)
    return run.close("ok", None, 0)


class CellRun:
    """The steps of a run, and what of it is to be recorded.

    Args:
        directory: the run's.
        config: the resolved configuration.
        record: as the launcher has started it.
    """

    def __init__(self, directory: Path, config: dict[str, Any], record: dict[str, Any]) -> None:
        self.directory = directory
        self.config = config
        self.record = record
        self.mirror: Any = None
        self.tracker: Tracker | None = None
        self.trainer: pl.Trainer | None = None
        self.pictures: list[Path] = []

    def execute(self) -> None:
        """Trains from the start or from the last checkpoint, tests, and fills in the record."""
        config, record = self.config, self.record
        torch.set_num_threads(config["cluster"]["threads_per_process"])
        pl.seed_everything(config["seed"], verbose=False)
        datamodule = instantiate(config["datamodule"])
        datamodule.setup("fit")
        module = instantiate(config["module"])
        module.net.check_image_size(*config["data"]["image_size"])
        complexity = measure(module.net, (config["data"]["in_channels"], *config["data"]["image_size"]))
        manifest = datamodule.manifest()

        tracker = Tracker(
            self.directory, complexity.train_macs_per_sample, config["recipe"]["batch_size"], config["seed"]
        )
        checkpoints = Checkpoints(self.directory / "checkpoints", f"val/{module.primary}")
        world_size = config["trainer"]["devices"] * config["trainer"]["num_nodes"]
        strategy = "ddp" if world_size > 1 else "auto"
        trainer = instantiate(
            config["trainer"],
            strategy=strategy,
            callbacks=[tracker, checkpoints],
            plugins=[AtomicCheckpointIO()],
            logger=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=str(self.directory),
        )
        self.tracker, self.trainer = tracker, trainer
        if trainer.world_size != world_size:
            raise RuntimeError(f"{world_size} processes were asked for, {trainer.world_size} were started")
        device = trainer.strategy.root_device
        last = self.directory / "checkpoints" / LAST
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
            },
            "dataset": manifest,
            "counts": manifest["counts"],
            "baselines": manifest["baselines"],
            "complexity": complexity.as_dict(),
            "protocol": {
                "checkpoint": "last",
                "split": "test",
                "metric": f"test/{module.primary}",
                "metric_label": f"test {module.label}",
                "definitions": module.definitions,
            },
        }
        if last.exists():
            record["resumptions"] = [*record["resumptions"], {"at": files.now()}]
        self._write()
        if _rank() == 0 and config["logger"]["mode"] != "none":
            from benchmarks.mirror import Mirror

            self.mirror = Mirror(record, config, logged_names(f"val/{name}" for name in module.definitions))
            trainer.logger = self.mirror.logger
            record["wandb"] = {"id": self.mirror.run.id, "mode": self.mirror.mode}
            self._write()

        trainer.fit(module, datamodule=datamodule, ckpt_path=str(last) if last.exists() else None, weights_only=True)
        trainer.test(module, datamodule=datamodule, verbose=False)
        tested = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("test/")}
        if tested["test/n"] != manifest["counts"]["test"]:
            raise RuntimeError(f"tested {tested['test/n']:.0f} images of {manifest['counts']['test']}")
        record["metrics"] = tested | {"test/n": int(tested["test/n"])}
        if module.confusion is not None and len(module.confusion) <= CONFUSION_UP_TO:
            record["confusion"] = module.confusion.tolist()
        if module.examples and _rank() == 0:
            from benchmarks.pictures import write_pictures

            self.pictures = write_pictures(self.directory, module.examples)
        record["weights_sha256"] = weights_sha256(module.net.state_dict())

    def close(self, status: str, error: str | None, exit_code: int) -> int:
        """Writes the outcome, here and in the mirror; returns the exit code."""
        if _rank() != 0:
            return exit_code
        self.record |= {"status": status, "error": error, "finished": files.now()}
        if self.tracker is not None and self.trainer is not None:
            device = self.trainer.strategy.root_device
            self.record["compute"] = self.tracker.totals(self.trainer) | {
                "peak_memory_bytes": peak_memory_bytes(device)
            }
        try:
            self._write()
        finally:
            if self.mirror is not None:
                self.mirror.finish(self.record, self.pictures, exit_code)
        return exit_code

    def _write(self) -> None:
        if _rank() == 0:
            files.write_json(self.directory / files.RECORD, self.record)


def describe(error: BaseException) -> str:
    """The cause in one line, without Hydra's wrapping."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "no space left on the disk; what was written before is intact"
    lines = str(error).strip().splitlines()
    known = isinstance(error, ValueError | FileNotFoundError | ArithmeticError | ImportError)
    text = lines[0] if lines else ""
    return text if known and text else f"{type(error).__name__}: {text}".rstrip(": ")


def quiet() -> None:
    """Leaves out advice that does not apply here; the rest goes to the run's log."""
    import logging

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")  # small images live in memory
    warnings.filterwarnings("ignore", ".*It is recommended to use `self.log.*sync_dist=True`.*")  # already synchronised


def _rank() -> int:
    return int(os.environ.get("RANK", 0))


def _terminate(signum: int, frame: Any) -> None:
    raise Interrupted(signal.Signals(signum).name)


def _first_failure(directory: Path, reason: str) -> None:
    """The first rank to fail names the cause; its peers only see a broken connection."""
    try:
        with open(directory / files.FAILURE, "x", encoding="utf-8") as file:
            json.dump({"error": reason, "rank": _rank(), "time": time.time()}, file)
    except OSError:
        pass


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
