"""The LightningDataModule of every data set that fits in memory."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from datamodules.batching import EvaluationRows, EvaluationSampler, GlobalBatchSampler, TrainRows, mix_seed
from datamodules.splits import Split, Splits
from datamodules.transforms import Augmentation, Batch, check_statistics, normalise


class _TrainBatches(Dataset[Batch]):
    """Augmented batches; the augmentation is a pure function of (seed, epoch, batch, place in the global batch)."""

    def __init__(
        self, split: Split, augmentation: Augmentation, mean: Sequence[float], std: Sequence[float], seed: int
    ):
        self.split = split
        self.augmentation = augmentation
        self.mean = torch.tensor(mean)
        self.std = torch.tensor(std)
        self.seed = seed

    def __getitem__(self, item: TrainRows) -> Batch:
        generator = torch.Generator().manual_seed(mix_seed("augmentation", self.seed, item.epoch, item.batch))
        height, width = self.split.images.shape[-2:]
        draws = self.augmentation.draw(item.global_size, height, width, generator).part(item.first, len(item.rows))
        images = self.split.images.index_select(0, item.rows)
        targets = self.split.targets.index_select(0, item.rows)
        return self.augmentation.apply(images, targets, draws, self.mean, self.std)


class _EvaluationBatches(Dataset[Batch]):
    """Normalised batches of consecutive images."""

    def __init__(self, split: Split, mean: Sequence[float], std: Sequence[float]):
        self.split = split
        self.mean = torch.tensor(mean)
        self.std = torch.tensor(std)

    def __getitem__(self, item: EvaluationRows) -> Batch:
        rows = slice(item.start, item.stop)
        return Batch(normalise(self.split.images[rows], self.mean, self.std), self.split.targets[rows].long())


class InMemoryDataModule(LightningDataModule):
    """Batches from decoded arrays: the same images in the same global batches at any number of processes.

    source: called once per process, returns the data. batch_size: global, divided by the world size.
    eval_batch_size: images per process and step. augment: see Augmentation. mean, std: per channel, of pixels
    divided by 255. seed: decides order and augmentation, both anew in every epoch.
    The trainer must be built with use_distributed_sampler=False: the samplers know their rank already.
    Raises ValueError on arguments that contradict one another or the data: augment's at once, mean's, std's and the
    image sizes' in setup, batch sizes' when a loader is made, once the world size is known.
    """

    def __init__(
        self,
        source: Callable[[], Splits],
        batch_size: int,
        eval_batch_size: int,
        augment: Mapping[str, int | bool],
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
    ) -> None:
        super().__init__()
        self.source = source
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.augmentation = Augmentation(augment)
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.seed = seed

    @cached_property
    def splits(self) -> Splits:
        """The data, loaded when first asked for."""
        return self.source()

    def setup(self, stage: str | None = None) -> None:
        """Load the data and check it against mean, std and augment."""
        train = self.splits.train
        check_statistics(self.mean, self.std, train.images.shape[1])
        self.augmentation.check(train)

    def train_dataloader(self) -> DataLoader[Batch]:
        """This rank's part of every global batch of an epoch, shuffled and augmented."""
        train = self.splits.train
        sampler = GlobalBatchSampler(len(train), self.batch_size, self.seed, *self._rank_and_world_size())
        return _loader(_TrainBatches(train, self.augmentation, self.mean, self.std, self.seed), sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        """This rank's shard of the validation split, in order."""
        return self._evaluation_loader(self.splits.val)

    def test_dataloader(self) -> DataLoader[Batch]:
        """This rank's shard of the test split, in order."""
        return self._evaluation_loader(self.splits.test)

    def manifest(self) -> dict[str, Any]:
        """What identifies the data in a record: counts, classes, checksum, shape [C, H, W] of a stored training image
        (before any crop), notes and baselines, as plain types."""
        splits = self.splits
        return {
            "counts": {name: len(split) for name, split in splits.named().items()},
            "classes": list(splits.classes),
            "sha256": splits.checksum(),
            "image_shape": list(splits.train.images.shape[1:]),
            "notes": splits.notes,
            "baselines": dict(splits.baselines),
        }

    def _evaluation_loader(self, split: Split) -> DataLoader[Batch]:
        sampler = EvaluationSampler(len(split), self.eval_batch_size, *self._rank_and_world_size())
        return _loader(_EvaluationBatches(split, self.mean, self.std), sampler)

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)


def _loader(dataset: Dataset[Batch], sampler: GlobalBatchSampler | EvaluationSampler) -> DataLoader[Batch]:
    # No workers: a batch takes under a millisecond, less than its way between processes.
    return DataLoader(dataset, sampler=sampler, batch_size=None, num_workers=0)
