"""Checkpoints from which a run goes on to the same bits: atomic, checked when read, tensors and plain types only."""

import hashlib
import io
import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import EMAWeightAveraging
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor, nn
from torchmetrics import Metric

from benchmarks.records.files import write_atomic
from benchmarks.training.batch_hooks import BatchCallback
from benchmarks.training.budget import Budget
from benchmarks.training.cost_meter import CostMeter
from benchmarks.training.stopping import Interrupted, StopRequest

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
NEXT, DAMAGED = "next.ckpt", "damaged.ckpt"
ORIGIN = "origin"  # of a checkpoint: what trained it; of before this key, absent
WEIGHTS = ("epoch", "global_step", "pytorch-lightning_version", "state_dict")
RESUMABLE = {"loops", "optimizer_states", "lr_schedulers", "partial_metrics", *WEIGHTS}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs and renames: a full disk or a kill leaves the checkpoints before intact.

    The one that ``last.ckpt`` replaces becomes ``previous.ckpt``. The weights, of ``module``, are stored under their plain
    names, which ``torch.compile`` prefixes.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save ``checkpoint`` at ``path``; ``storage_options`` are the keys to be kept, None for all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        selection = {key: checkpoint[key] for key in storage_options or checkpoint}
        content = io.BytesIO()  # torch.save into a file hides the cause when a write fails
        torch.save(_renamed(selection, _plain_name), content)
        if path.name != LAST:
            write_atomic(path, content.getbuffer())
            return
        write_atomic(path.with_name(NEXT), content.getbuffer())
        if path.exists():
            os.replace(path, path.with_name(PREVIOUS))
        os.replace(path.with_name(NEXT), path)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Load what ``save_checkpoint`` wrote, without unpickling code."""
        names = {_plain_name(name): name for name in self.module.state_dict()}
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
        return _renamed(checkpoint, lambda name: names.get(name, name))


class Averaging(EMAWeightAveraging):
    """An exponential moving average of the weights, which is what is evaluated; checkpoints hold it as ``state_dict`` and the
    weights in training as ``current_model_state``."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Copy the network. What modules keep of a forward pass, as those of weight_norm do, loses its gradient's history,
        which torch does not copy; the next pass computes it anew."""
        for module in pl_module.modules():
            kept = {name: value for name, value in vars(module).items() if isinstance(value, Tensor)}
            vars(module).update({name: value.detach() for name, value in kept.items() if not value.is_leaf})
        super().setup(trainer, pl_module, stage)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Test the average also where training was over before: Lightning then skips ``on_train_end``."""
        self.on_train_end(trainer, pl_module)


class Checkpoints(BatchCallback):
    """Keeps the last two checkpoints and the best weights in ``directory``, and stops training when asked to.

    Saves after every epoch, and within it where ``every_steps`` or a request to stop says so: state of optimiser, schedule,
    loader and metrics as they are between two batches. Comes after all callbacks with a state: what it saves at a batch's end
    includes that batch. Only finite losses get here, so that what is kept is good.

    Args:
        directory: where to.
        monitor: the validation metric, lower is better; ties keep the earlier.
        stop: what asks training to stop.
        every_steps: optimiser steps between checkpoints, and then one before each evaluation; None for those of epochs alone.
        origin: what trains, kept in every checkpoint: checksums ``code`` and ``data``, the number of ``threads`` and the
            ``precision``.

    Raises:
        Interrupted: in training, after the checkpoint, if it was to stop.
    """

    def __init__(
        self,
        directory: Path,
        monitor: str,
        stop: StopRequest,
        every_steps: int | None,
        origin: Mapping[str, str],
    ) -> None:
        self.directory = directory
        self.monitor = monitor
        self.stop = stop
        self.origin = dict(origin)
        self.every_steps = every_steps
        self.best = float("inf")
        self._within_epoch = False
        self._evaluation_due = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on a request to stop waits for the end of a step."""
        self.stop.begin_training(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Save within the epoch; every rank takes part."""
        loop = trainer.fit_loop.epoch_loop
        if loop._should_accumulate():
            return  # gradients are not saved
        stopping = self.stop.agreed()
        evaluation_due = loop._should_check_val_fx(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]
        # At these on_train_epoch_end follows, and Lightning could not be resumed before it.
        if trainer.should_stop or (trainer.is_last_batch and not evaluation_due):
            return
        every = self.every_steps
        if stopping or (every is not None and (evaluation_due or trainer.global_step % every == 0)):
            self._within_epoch, self._evaluation_due = True, evaluation_due
            trainer.save_checkpoint(self.directory / LAST)
            self._within_epoch = False
            for clock in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(clock, CostMeter | Budget):
                    clock.start_clock()  # saving is not counted
        if stopping:
            raise Interrupted(self.stop.received)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save after each epoch, validated or not: then there is no metric, or an older one. Every rank takes part."""
        value = float(trainer.callback_metrics.get(self.monitor, math.inf))
        if value < self.best:
            self.best = value
            # First, or a kill between the two would leave a checkpoint that takes this epoch's weights for saved. With all of
            # the checkpoint, as Lightning's weights_only leaves the averaged weights out.
            trainer.save_checkpoint(self.directory / BEST, storage_options=WEIGHTS)
        trainer.save_checkpoint(self.directory / LAST)
        if self.stop.agreed():
            raise Interrupted(self.stop.received)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on a request to stop is met at once."""
        self.stop.end_training()

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add what every rank's metrics have gathered since the last evaluation; counts the batch as done."""
        partial: list[Any] = [_partial_metrics(pl_module)]
        if self.stop.group is not None:
            partial *= trainer.world_size
            dist.all_gather_object(partial, partial[0], group=self.stop.group)
        checkpoint["partial_metrics"] = partial
        checkpoint[ORIGIN] = self.origin
        if self._within_epoch:
            _count_batch_as_done(checkpoint["loops"]["fit_loop"], self._evaluation_due)

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Give this rank's metrics back what they had gathered. Raises ValueError for another number of processes."""
        partial = checkpoint["partial_metrics"]
        if len(partial) != trainer.world_size:
            raise ValueError(f"the checkpoint is of {len(partial)} processes, these are {trainer.world_size}")
        metrics: dict[str, Any] = dict(pl_module.named_modules())
        for name, (updates, state) in partial[trainer.global_rank].items():
            for key, value in state.items():
                setattr(metrics[name], key, value)
            metrics[name]._update_count = updates

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]


def check_archive(file: Path | IO[bytes]) -> None:
    """Raise BadZipFile for a file that is no archive of ``torch.save``, or where a record has another checksum (CRC-32) than it
    was written with: ``torch.load`` does not look at them."""
    with zipfile.ZipFile(file) as records:
        if (record := records.testzip()) is not None:
            raise zipfile.BadZipFile(f"wrong checksum of {record}")


def newest_intact(directory: Path) -> tuple[Path | None, dict[str, Any], list[str]]:
    """Return the newest checkpoint of the two whose checksums are right, its content, and what is wrong with newer ones. Raises
    ValueError where it loads, but is no checkpoint to go on from."""
    wrong = []
    for path in (directory / LAST, directory / PREVIOUS):
        if not path.exists():
            if path.name == LAST and path.with_name(PREVIOUS).exists():
                wrong.append(f"{LAST} is missing")
            continue
        try:
            check_archive(path)
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # of damage: whatever the readers trip over
            [cause, *_] = [*str(error).strip().splitlines(), type(error).__name__]
            wrong.append(f"{path.name} is damaged ({cause})")
            continue
        if missing := RESUMABLE - set(checkpoint if isinstance(checkpoint, dict) else ()):
            raise ValueError(f"{path} is no checkpoint to go on from: it has no {', '.join(sorted(missing))}")
        return path, checkpoint, wrong
    return None, {}, wrong


def tidy(directory: Path, resumed: Path | None) -> None:
    """Remove what a killed writer has left, and move a ``last.ckpt`` aside that is damaged, where the run is ``resumed``
    from another one, so that it does not become the previous one."""
    for left in (*directory.glob(".*.tmp"), directory / NEXT):
        left.unlink(missing_ok=True)
    if resumed != directory / LAST and (directory / LAST).exists():
        os.replace(directory / LAST, directory / DAMAGED)


def check_fits(path: Path, weights: Mapping[str, Tensor], module: nn.Module) -> None:
    """Raise ValueError if the weights in ``path`` are another network's, naming the first difference."""
    expected = {_plain_name(name): tensor for name, tensor in module.state_dict().items()}
    for name, tensor in expected.items():
        if name not in weights:
            raise ValueError(f"{path} is of another network: it has no {name}")
        if weights[name].shape != tensor.shape:
            there, here = tuple(weights[name].shape), tuple(tensor.shape)
            raise ValueError(f"{path} is of another network: {name} is {there} there, {here} here")
    if unknown := [name for name in weights if name not in expected]:
        raise ValueError(f"{path} is of another network: this one has no {unknown[0]}")


def check_origin(path: Path, checkpoint: Mapping[str, Any], origin: Mapping[str, str]) -> None:
    """Raise ValueError if a checkpoint was trained by other code or on other images than are here."""
    there = checkpoint.get(ORIGIN) or {}
    for name, what, other in (
        ("code", "by other training code", "output_root"),
        ("data", "on other images", "data.name or output_root"),
    ):
        if name in there and there[name] != origin[name]:
            raise ValueError(
                f"{path} was trained {what} (SHA-256 {str(there[name])[:12]} there, {origin[name][:12]} here); choose another "
                f"{other} or move the run's folder away"
            )


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}\n".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _plain_name(name: str) -> str:
    return name.replace("_orig_mod.", "")


def _renamed(checkpoint: dict[str, Any], rename: Any) -> dict[str, Any]:
    """Return the checkpoint with other names of its weights."""
    held = [key for key in ("state_dict", "current_model_state") if key in checkpoint]
    return checkpoint | {key: {rename(name): tensor for name, tensor in checkpoint[key].items()} for key in held}


def _partial_metrics(module: nn.Module) -> dict[str, tuple[int, dict[str, Any]]]:
    """Updates and state of each metric that has been updated since its last reset, by name, on the CPU."""
    partial = {}
    for name, metric in module.named_modules():
        if isinstance(metric, Metric) and metric.update_called:
            state: dict[str, Any] = metric.metric_state
            partial[name] = metric.update_count, {key: value.cpu() for key, value in state.items()}
    return partial


def _count_batch_as_done(loops: dict[str, Any], evaluation_due: bool) -> None:
    """Make the progress saved at a batch's end, where Lightning has not yet counted it, that of after the batch.

    Resumed from its own counters Lightning skips the evaluation of an epoch whose last batch it was. An evaluation that has
    begun and has no batch behind it is run.
    """
    for counts in (loops["epoch_loop.batch_progress"][key] for key in ("total", "current")):
        counts["completed"] = counts["processed"]
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
    if evaluation_due:
        none = dict.fromkeys(("ready", "started", "processed", "completed"), 0)
        begun = none | {"ready": 1, "started": 1}
        loops["epoch_loop.val_loop.batch_progress"] = {"total": begun, "current": none, "is_last_batch": False}
