"""Which images make up which batch: a pure function of (seed, epoch), whatever the number of processes.

All go to torch's DataLoader as `sampler=` with `batch_size=None`: each item names a whole batch.
"""

import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from datamodules.readers.seeds import mix_seed


class TrainRows(NamedTuple):
    """One rank's part of one global batch.

    rows: int64 [batch_size / world_size], the images. first: the place of rows[0] in global_rows, the global batch.
    """

    rows: Tensor
    epoch: int
    batch: int
    first: int
    global_rows: Tensor


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ValueError(f"the rank must lie in 0..{world_size - 1} for world size {world_size}, got {rank}")


class GlobalBatchSampler(Sampler[TrainRows]):
    """Cuts each epoch's permutation into global batches and yields this rank's contiguous slice of each.

    count: images in the training split. batch_size: global, over all ranks. The last, partial batch is dropped; every
    epoch has another permutation, so no image is lost for good. Epoch and first batch are read when a batch is first asked
    for, because Lightning, when it resumes, makes the iterator before it calls set_epoch.
    Raises ValueError if batch_size is not a multiple of world_size or exceeds count.
    """

    def __init__(self, count: int, batch_size: int, seed: int, rank: int, world_size: int) -> None:
        _check_rank(rank, world_size)
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(
                f"the global batch size must be a positive multiple of the {world_size} processes, got {batch_size}"
            )
        if count < batch_size:
            fits = count // world_size * world_size
            raise ValueError(
                f"an epoch needs at least one batch of {batch_size} images, the training split has {count}"
                + (f"; recipe.batch_size={fits} fits" if fits else "")
            )
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation; Lightning calls this before each epoch."""
        if epoch != self.epoch:
            self.start_at(epoch, 0)

    def start_at(self, epoch: int, batch: int) -> None:
        """Leave out the batches before this one, in this epoch alone."""
        self.epoch, self.start = epoch, batch

    def __len__(self) -> int:
        return self.count // self.batch_size

    def __iter__(self) -> Iterator[TrainRows]:
        epoch, start_batch = self.epoch, self.start
        order = self.order(epoch)
        share = self.batch_size // self.world_size
        first = share * self.rank
        for batch in range(start_batch, len(self)):
            rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield TrainRows(rows[first : first + share], epoch, batch, first, rows)

    def order(self, epoch: int) -> Tensor:
        """Return the images of an epoch in their order, int64 [count]."""
        generator = torch.Generator().manual_seed(mix_seed("order", self.seed, epoch))
        return torch.randperm(self.count, generator=generator)


class GroupedBatchSampler(GlobalBatchSampler):
    """Global batches of one of two kinds of image, as far as they fill; what is left over of both makes up the rest.

    kind: bool [count], of each image. See GlobalBatchSampler for the other arguments.
    """

    def __init__(self, kind: Tensor, batch_size: int, seed: int, rank: int, world_size: int) -> None:
        super().__init__(len(kind), batch_size, seed, rank, world_size)
        self.kind = kind

    def order(self, epoch: int) -> Tensor:
        """Return the images of an epoch in their order: shuffled batches of shuffled images."""
        order, size = super().order(epoch), self.batch_size
        # Chosen before the kinds are told apart: else those of one kind would be left out more often.
        used, left_over = order[: len(self) * size], order[len(self) * size :]
        batches, rest = zip(*(_cut(used[self.kind[used] == kind], size) for kind in (True, False)), strict=True)
        every = torch.cat([*batches, torch.cat(rest).view(-1, size)])
        generator = torch.Generator().manual_seed(mix_seed("batches", self.seed, epoch))
        return torch.cat([every[torch.randperm(len(every), generator=generator)].flatten(), left_over])


def _cut(rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return whole batches [n, size] and the rows that are left over."""
    whole = len(rows) // size * size
    return rows[:whole].view(-1, size), rows[whole:]


class ResumableLoader(DataLoader[Any]):
    """Training batches, with the place in the epoch as its state: what has been handed out, not what workers have prepared.

    Workers are started with the first batch and serve all epochs; when one ends they begin the next, while its evaluation runs.
    pin_memory: whether batches go to a GPU.
    Raises ValueError if workers is no whole number from 0.
    """

    def __init__(
        self, dataset: Dataset[Any], sampler: GlobalBatchSampler, workers: int, pin_memory: bool = False
    ) -> None:
        if not isinstance(workers, int) or workers < 0:
            raise ValueError(f"cluster.loader_workers is a whole number from 0, got {workers!r}")
        super().__init__(dataset, sampler=sampler, **loader_options(workers, pin_memory))
        self._batches = sampler
        self._place = {"epoch": 0, "batch": 0}
        self._begun: tuple[dict[str, int], Iterator[Any]] | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator: workers start with the first batch, when the epoch is known.
        epoch = self._batches.epoch
        place = self._place = {"epoch": epoch, "batch": self._batches.start}
        begun, self._begun = self._begun, None
        for batch in begun[1] if begun is not None and begun[0] == place else super().__iter__():
            place["batch"] += 1
            yield batch
        if self.num_workers:
            self._batches.start_at(epoch + 1, 0)
            self._begun = {"epoch": epoch + 1, "batch": 0}, super().__iter__()

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, and the batch to be handed out next."""
        return dict(self._place)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on with that batch."""
        self._batches.start_at(state["epoch"], state["batch"])


def as_made(batch: Any) -> Any:
    """Return the batch itself: torch's default would look at each of its parts."""
    return batch


def loader_options(workers: int = 0, pin_memory: bool = False) -> dict[str, Any]:
    """Return a loader's options for items that name whole batches, and for workers: forked, so that they import and copy
    nothing, started once, deaf to stop signals.

    A process that a fork server has started would by default have its workers from another server, which imports torch.
    """
    options = {"batch_size": None, "collate_fn": as_made, "num_workers": workers, "pin_memory": pin_memory}
    if workers == 0:
        return options
    return options | {
        "multiprocessing_context": "fork",
        "persistent_workers": True,
        "worker_init_fn": ignore_stop_signals,
    }


def ignore_stop_signals(worker: int) -> None:
    """Let a worker end with its process, which handles the signals that Slurm and Ctrl-C send to all of them."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def evaluation_batches(count: int, batch_size: int, rank: int, world_size: int) -> list[range]:
    """Return the batches of rank r of W, rows n*r//W .. n*(r+1)//W - 1 of n, in order: nothing padded, repeated or dropped.

    count: n. batch_size: images per process and step; the last batch may be smaller. torch's DistributedSampler pads by
    repeating images, which changes the metrics (pytorch issue 25162).
    Raises ValueError if n < W, because every rank needs a batch, or if batch_size < 1.
    """
    _check_rank(rank, world_size)
    if batch_size < 1:
        raise ValueError(f"the evaluation batch size must be at least 1, got {batch_size}")
    if count < world_size:
        raise ValueError(f"evaluation on {world_size} processes needs at least as many images, got {count}")
    rows = range(count * rank // world_size, count * (rank + 1) // world_size)
    return [rows[first : first + batch_size] for first in range(0, len(rows), batch_size)]
