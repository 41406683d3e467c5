"""The LightningDataModule of ImageNet: images that are decoded, cropped and coloured anew in every epoch."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from datamodules.augmentation.crops import check_statistics, normalise
from datamodules.augmentation.imagenet import ImageAugmentation
from datamodules.augmentation.views import view_of
from datamodules.base import SplitDataModule
from datamodules.loading.batch import Batch
from datamodules.loading.batching import ResumableLoader, TrainRows
from datamodules.readers.encoded import FolderImages, ImageSplit, ImageSplits
from datamodules.readers.seeds import mix_seed
from datamodules.readers.stored_image import StoredImage


@dataclass(eq=False)
class _TrainBatches(Dataset[Batch]):
    """Augmented batches; the augmentation is a pure function of (seed, epoch, image)."""

    split: ImageSplit
    augmentation: ImageAugmentation
    mean: np.ndarray
    std: np.ndarray
    seed: int

    def __getitem__(self, item: TrainRows) -> Batch:
        size = self.augmentation.size
        batch = _empty_batch(len(item.rows), 3, size, size)
        images = batch.numpy()
        for place, number in enumerate(item.rows.tolist()):
            generator = torch.Generator().manual_seed(mix_seed("augmentation", self.seed, item.epoch, number))
            image = StoredImage(self.split.files, self.split.rows[number])
            self.augmentation(image, self.mean, self.std, generator, out=images[place])
        return Batch(batch, torch.from_numpy(self.split.classes(item.rows.numpy())))


@dataclass(eq=False)
class _EvaluationBatches(Dataset[Batch]):
    """Normalised batches of a view of consecutive images."""

    split: ImageSplit
    view: Callable[[StoredImage], np.ndarray]
    mean: Tensor
    std: Tensor

    def __getitem__(self, item: range) -> Batch:
        rows = slice(item.start, item.stop)
        views = [self.view(StoredImage(self.split.files, row)) for row in self.split.rows[rows]]
        batch = _empty_batch(len(views), *views[0].shape[:-3], 3, *views[0].shape[-3:-1])
        for images, view in zip(batch, views, strict=True):
            images.copy_(normalise(torch.from_numpy(view).movedim(-1, -3), self.mean, self.std))
        return Batch(batch, torch.from_numpy(self.split.classes(rows)))


def _empty_batch(*shape: int) -> Tensor:
    """Allocate a batch, float32, not initialised: in a worker in shared memory, which saves a copy."""
    if get_worker_info() is None:
        return torch.from_numpy(np.empty(shape, dtype=np.float32))  # on large pages, which torch.empty does not ask for
    size = torch.float32.itemsize * math.prod(shape)
    return torch.empty(0).set_(torch.UntypedStorage._new_shared(size)).view(shape)


class ImageNetDataModule(SplitDataModule[ImageSplits]):
    """Batches from encoded images, the same at any number of workers; see SplitDataModule.

    image_size: of a crop, [S, S]. eval_batch_size: in the usual test view, fewer images in larger ones. test_views: see
    view_of; one more test loader each, in this order. augment: see ImageAugmentation. loader_workers: one set for training and
    one for evaluation, started once.
    Raises ValueError on arguments that contradict one another or the data: batch sizes' when a loader is made, once the
    world size is known, others at once or in setup. Images are read when they are needed: DamagedImageError, a ValueError,
    then names one that cannot be.
    """

    workers_on_cpu = 1

    def __init__(
        self, *arguments: Any, image_size: Sequence[int], test_views: Sequence[str | int], **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.image_size = height, width = image_size
        if height != width:
            raise ValueError(f"data.image_size must be a square, got {height}x{width}")
        self.views = [view_of(view, width) for view in ("1crop", *test_views)]
        self.augmentation = ImageAugmentation(self.augment, width)
        check_statistics(self.mean, self.std, channels=3)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return this rank's part of every global batch of an epoch, shuffled and augmented."""
        mean, std = np.array(self.mean), np.array(self.std)
        batches = _TrainBatches(self.splits.train, self.augmentation, mean, std, self.seed)
        return ResumableLoader(batches, self.train_sampler(), self._workers(), pin_memory=self._on_gpu())

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return this rank's shard of the validation split, in order, as the first test view has it."""
        return self._view_loader(self.splits.val, *self.views[0])

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """Return this rank's shard of the test split, in order, once per view."""
        return [self._view_loader(self.splits.test, *view) for view in self.views]

    def training_images(self, count: int, batch_size: int) -> Iterator[Tensor]:
        """Yield evenly spaced training images in the first test view; see SplitDataModule."""
        view, _ = self.views[0]
        batches = _EvaluationBatches(self.splits.train, view, *self.statistics())
        for rows in self.spaced_rows(count, batch_size):
            images = [batches[range(row, row + 1)].images for row in rows.tolist()]
            yield torch.cat(images).to(self.root_device())

    def read_view(self, path: Path, shape: Sequence[int]) -> Tensor:
        """Return an image file in the first test view; see SplitDataModule."""
        view, _ = self.views[0]
        pixels = torch.from_numpy(view(StoredImage(FolderImages.single(path), 0))).movedim(-1, -3)
        return normalise(pixels[None], *self.statistics())[0]

    def _view_loader(
        self, split: ImageSplit, view: Callable[[StoredImage], np.ndarray], crops: int
    ) -> DataLoader[Batch]:
        # No more pixels in a batch than in one of the usual view: those of the network's activations count.
        batch_size = max(1, self.eval_batch_size // crops)
        batches = _EvaluationBatches(split, view, *self.statistics())
        return self._evaluation_workers_loader(batches, len(split), batch_size)
