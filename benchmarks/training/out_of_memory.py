"""The largest batches that memory holds: of evaluation, and of a step that does not fit, at an equal global batch."""

import gc
import re
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from benchmarks.records.record import Record
from benchmarks.training.batch_hooks import BatchCallback

# What PyTorch's allocator on a CPU, oneDNN and the C++ library say.
MESSAGES = re.compile(
    r"out of memory|not enough memory|can't allocate memory|bad_alloc|could not create a (primitive|memory)", re.I
)
OPTIMIZER_COPIES = 2  # of the weights: momentum, and the buckets in which processes exchange gradients


class OutOfMemory(BatchCallback):
    """Names the largest batch that fits, or makes a process's share of a batch fit before training.

    Args:
        record: the run's; its ``parallel`` gets the number of parts.
        accumulate: split the share into as few equal parts as fit, the same number on all processes.

    Attributes:
        error: of a step that did not fit, in one line; None before.
    """

    def __init__(self, record: Record, accumulate: bool) -> None:
        self.record = record
        self.accumulate = accumulate
        self.error: MemoryError | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Finds the number of parts. Raises MemoryError where on some process not one image fits."""
        if not self.accumulate:
            return
        mine = torch.tensor(fewest_parts(trainer, pl_module, pl_module.micro_batches) or 0)
        mine = mine.to(trainer.strategy.root_device)
        least, most = (int(trainer.strategy.reduce(mine.clone(), reduce_op=kind)) for kind in ("min", "max"))
        if least == 0:
            raise MemoryError("out of memory with one image a process and step")
        pl_module.micro_batches = most
        if self.record.parallel is not None:
            self.record.parallel.accumulate_grad_batches = most

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
        message = f"out of memory with {share // before} images a process" + (
            f" in each of {before} parts" if before > 1 else ""
        )
        parts = fewest_parts(trainer, pl_module, before + 1)
        if parts is None:
            self.error = MemoryError(f"{message}; not one image fits")
            return
        self.error = MemoryError(
            f"{message}; {share // parts} fit: trainer.accumulate_grad_batches={parts} or trainer.on_out_of_memory=accumulate "
            "keeps the batch"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, the device's or the machine's."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and MESSAGES.search(str(error)) is not None


def fewest_parts(trainer: pl.Trainer, module: Any, least: int) -> int | None:
    """The fewest equal parts, at least this many, of this process's share of a batch of which each fits; None if none does.

    Tries a forward and backward pass of a part, beside what the optimiser and other processes take. Weights and running
    statistics stay as they are; gradients are cleared.
    """
    share = _share(trainer)
    buffers = {name: buffer.clone() for name, buffer in module.net.named_buffers()}
    for parts in (n for n in range(least, share + 1) if share % n == 0):
        fits = _fits(module, partial(_try, trainer, module, share // parts))
        with torch.no_grad():
            for name, buffer in module.net.named_buffers():
                buffer.copy_(buffers[name])
        if fits:
            return parts
    return None


def largest_evaluation_batch(trainer: pl.Trainer, module: Any, image: Sequence[int], start: int, most: int) -> int:
    """Images (C, H, W = ``image``) that this process can evaluate at once beside what training keeps: ``start`` doubled as
    often as it fits, up to ``most``, or halved until it fits. Raises MemoryError where not one image fits.

    Before training: Lightning has not converted the module to a narrower precision, so it is tried in that of its weights.
    """
    device = trainer.strategy.root_device
    module.to(device).eval()

    def attempt(size: int) -> None:
        others = _beside(module)
        images = torch.zeros(size, *image, device=device, dtype=module.dtype)
        coming = torch.empty_like(images)  # the next batch is there before this one is done
        with torch.inference_mode(), trainer.precision_plugin.val_step_context():
            module.net.forward(images)  # not compiled for every size that is tried
        del others, coming

    size = min(start, most)
    while size and not _fits(module, partial(attempt, size)):
        size //= 2
    if not size:
        raise MemoryError("out of memory with one image in evaluation")
    while size >= start and size < most and _fits(module, partial(attempt, min(2 * size, most))):
        size = min(2 * size, most)
    module.train()
    return size


def _share(trainer: pl.Trainer) -> int:
    """Images of a process and step."""
    return int(trainer.datamodule.batch_size) // trainer.world_size  # type: ignore[attr-defined]


def _fits(module: Any, attempt: Callable[[], None]) -> bool:
    try:
        attempt()
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
    parts = trainer.precision_plugin.convert_input([None if part is None else part[:size] for part in batch[:3]])
    share = trainer.strategy.batch_to_device(parts, device)
    others = _beside(module)
    with trainer.precision_plugin.train_step_context():
        loss = module.sample_losses(*share).mean()
    loss.backward()
    del others


def _beside(module: Any) -> list[Tensor]:
    """As much as the optimiser and the exchange between processes will take."""
    return [torch.empty_like(weight) for weight in module.parameters() for _ in range(OPTIMIZER_COPIES)]
