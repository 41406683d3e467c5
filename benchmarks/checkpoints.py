"""Checkpoints: the last epoch's and the best on validation, written atomically, tensors and plain types only."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from benchmarks.record import write_atomic

LAST, BEST = "last.ckpt", "best.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs and renames: a full disk or a kill leaves the checkpoint before intact."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Saves ``checkpoint`` at ``path``."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()  # torch.save into a file hides the cause when a write fails
        torch.save(checkpoint, content)
        write_atomic(path, content.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Loads what ``save_checkpoint`` wrote, without unpickling code."""
        return torch.load(path, map_location=map_location, weights_only=True)


class Checkpoints(pl.Callback):
    """Keeps ``last.ckpt`` and ``best.ckpt`` in ``directory``.

    Runs after the tracker, whose check has let only finite losses through: what is kept is always good.

    Args:
        directory: where to.
        monitor: the validation metric, lower is better; ties keep the earlier.
    """

    def __init__(self, directory: Path, monitor: str) -> None:
        self.directory = directory
        self.monitor = monitor
        self.best = float("inf")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves after each epoch; every rank takes part."""
        value = float(trainer.callback_metrics[self.monitor])
        improved = value < self.best
        self.best = min(self.best, value)
        trainer.save_checkpoint(self.directory / LAST)
        if improved:
            trainer.save_checkpoint(self.directory / BEST, weights_only=True)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from the best value so far."""
        self.best = state_dict["best"]


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}\n".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
