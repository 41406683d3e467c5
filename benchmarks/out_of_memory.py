"""When memory does not hold a step: the largest batch that fits, and its use at an equal global batch."""

import gc
import re
import traceback
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

# What PyTorch's allocator on a CPU, oneDNN and the C++ library say.
SAID = re.compile(
    r"out of memory|not enough memory|can't allocate memory|bad_alloc|could not create a (primitive|memory)", re.I
)
OPTIMIZER_COPIES = 2  # of the weights: momentum, and the buckets in which processes exchange gradients


class OutOfMemory(pl.Callback):
    """Names the largest batch that fits, or makes a process's share of a batch fit before training.

    Args:
        record: the run's; its ``parallel`` gets the number of parts.
        accumulate: split the share into as few equal parts as fit, the same number on all processes.

    Attributes:
        error: of a step that did not fit, in one line; None before.
    """

    def __init__(self, record: dict[str, Any], accumulate: bool) -> None:
        self.record = record
        self.accumulate = accumulate
        self.error: MemoryError | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Finds the number of parts.

        Raises:
            MemoryError: on some process not one image fits.
        """
        if not self.accumulate:
            return
        mine = torch.tensor(fewest_parts(trainer, pl_module, pl_module.micro_batches) or 0)
        mine = mine.to(trainer.strategy.root_device)
        least, most = (int(trainer.strategy.reduce(mine.clone(), reduce_op=kind)) for kind in ("min", "max"))
        if least == 0:
            raise MemoryError("out of memory with one image a process and step")
        pl_module.micro_batches = self.record["parallel"]["accumulate_grad_batches"] = most

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Puts it into words, before Lightning takes the network from its device."""
        if not is_out_of_memory(exception) or isinstance(exception, MemoryError):
            return
        if not trainer.training:
            self.error = MemoryError("out of memory in evaluation: a smaller data.eval_batch_size needs less")
            return
        traceback.clear_frames(exception.__traceback__)  # they hold the activations
        share = _share(trainer)
        before = pl_module.micro_batches
        said = f"out of memory with {share // before} images a process" + (
            f" in each of {before} parts" if before > 1 else ""
        )
        parts = fewest_parts(trainer, pl_module, before + 1)
        if parts is None:
            self.error = MemoryError(f"{said}; not one image fits")
            return
        self.error = MemoryError(
            f"{said}; {share // parts} fit: trainer.accumulate_grad_batches={parts} or trainer.on_out_of_memory=accumulate "
            "keeps the batch"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, the device's or the machine's."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and SAID.search(str(error)) is not None


def fewest_parts(trainer: pl.Trainer, module: Any, least: int) -> int | None:
    """The fewest equal parts, at least this many, of this process's share of a batch of which each fits; None if none does.

    Tries a forward and backward pass of a part, beside what the optimiser and other processes take. Weights and running
    statistics stay as they are; gradients are cleared.
    """
    share = _share(trainer)
    buffers = {name: buffer.clone() for name, buffer in module.net.named_buffers()}
    for parts in (n for n in range(least, share + 1) if share % n == 0):
        fits = _fits(trainer, module, share // parts)
        with torch.no_grad():
            for name, buffer in module.net.named_buffers():
                buffer.copy_(buffers[name])
        if fits:
            return parts
    return None


def _share(trainer: pl.Trainer) -> int:
    """Images of a process and step."""
    return int(trainer.datamodule.batch_size) // trainer.world_size  # type: ignore[attr-defined]


def _fits(trainer: pl.Trainer, module: Any, size: int) -> bool:
    try:
        _try(trainer, module, size)
        return True
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        return False
    finally:
        for parameter in module.parameters():
            parameter.grad = None
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def _try(trainer: pl.Trainer, module: Any, size: int) -> None:
    device = trainer.strategy.root_device
    loader: Any = trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
    batch = loader.dataset[next(iter(loader.sampler))]
    images, targets, weights = (None if part is None else part[:size].to(device) for part in batch[:3])
    others: list[Tensor] = [torch.empty_like(w) for w in module.parameters() for _ in range(OPTIMIZER_COPIES)]
    with trainer.precision_plugin.train_step_context():
        loss = module.loss(module(images), targets, weights).mean()
    loss.backward()
    del others
