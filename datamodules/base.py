"""What the data modules share: splits, the place of this process, samplers and the manifest."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.augmentation.crops import normalise
from datamodules.loading.batching import GlobalBatchSampler, evaluation_batches, loader_options
from datamodules.readers.encoded import FolderImages, ImageSplits
from datamodules.readers.objects import ObjectSplits
from datamodules.readers.preparation import reporting_to
from datamodules.readers.splits import Splits
from datamodules.readers.stored_image import StoredImage

CPU = torch.device("cpu")
AnySplits = TypeVar("AnySplits", Splits, ImageSplits, ObjectSplits)


class SplitDataModule(LightningDataModule, Generic[AnySplits]):
    """Three splits in the same global batches at any number of processes.

    source: called once per process, returns the splits. batch_size: global, divided by the world size. eval_batch_size: images
    per process and step. augment: of the recipe, null for what is off. mean, std: per channel, of pixels divided by 255. seed:
    decides order and augmentation, both anew in every epoch. loader_workers: processes beside this one that make batches; null
    for one per thread beside a GPU, and ``workers_on_cpu`` without one, as the threads train there. num_classes, sha256: what
    the data must have, null for any.
    The trainer must be built with use_distributed_sampler=False: the samplers know their rank already.
    """

    device: torch.device = CPU  # of the batches, where the module is used without a trainer
    image_size: Sequence[int]  # of a training image, height and width, for which compute is counted
    workers_on_cpu = 0

    # For callers that have a data module and do not import this package.
    reporting_preparation_to = staticmethod(reporting_to)

    def __init__(
        self,
        source: Callable[[], AnySplits],
        batch_size: int,
        eval_batch_size: int,
        augment: Mapping[str, Any],
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        seed: int,
        loader_workers: int | None = None,
        num_classes: int | None = None,
        sha256: str | None = None,
    ) -> None:
        super().__init__()
        self.source: Callable[[], AnySplits] = source
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.augment = {name: value for name, value in augment.items() if value is not None}
        self.mean: tuple[float, ...] = tuple(mean or ())
        self.std: tuple[float, ...] = tuple(std or ())
        self.seed = seed
        self.loader_workers = loader_workers
        self.num_classes = num_classes
        self.sha256 = sha256

    @cached_property
    def splits(self) -> AnySplits:
        """The data, loaded or listed when first asked for."""
        return self.source()

    @cached_property
    def checksum(self) -> str:
        """The checksum of the splits, 64 hex digits."""
        return self.splits.checksum()

    def setup(self, stage: str | None = None) -> None:
        """Load or list the data; raise ValueError unless it has num_classes and sha256."""
        classes = len(self.splits.classes)
        if self.num_classes not in (None, classes):
            raise ValueError(f"data.num_classes must be {classes}, the classes of the data, got {self.num_classes}")
        if self.sha256 is not None and self.sha256 != self.checksum:
            raise ValueError(
                f"these are not the published images and splits: their checksum must be {self.sha256}, got {self.checksum}; "
                "fetch the files again, or use them as another set (data.sha256=null)"
            )

    def image_shape(self) -> list[int]:
        """Return the shape [C, H, W] of a training image, for the manifest."""
        return [len(self.mean), *self.image_size]

    def training_shape(self) -> list[int]:
        """Return the shape [C, H, W] of what is trained on."""
        return self.image_shape()

    def manifest(self) -> dict[str, Any]:
        """Return what identifies the data in a record, as plain types: counts, classes, checksum, shape, statistics, notes and
        baselines."""
        splits = self.splits
        return {
            "counts": {name: len(split) for name, split in splits.named().items()},
            "classes": list(splits.classes),
            "sha256": self.checksum,
            "image_shape": self.image_shape(),
            "mean": list(self.mean),
            "std": list(self.std),
            "notes": splits.notes,
            "baselines": dict(splits.baselines),
        }

    def remarks(self) -> list[str]:
        """Return what the one who started the run must know of the data at once."""
        return list(self.splits.remarks)

    def training_images(self, count: int, batch_size: int) -> Iterator[Tensor]:
        """Yield batches [B, C, H, W] of ``count`` evenly spaced training images as an evaluation sees them, the same on every
        process and of the network's device; B is at least batch_size where there are as many, and nearly the same for all."""
        raise NotImplementedError

    def statistics(self, device: torch.device = CPU) -> tuple[Tensor, Tensor]:
        """Return mean and std, float32 [C], on a device."""
        mean, std = (torch.tensor(values, dtype=torch.float32, device=device) for values in (self.mean, self.std))
        return mean, std

    def read_view(self, path: Path, shape: Sequence[int]) -> Tensor:
        """Return an image file as an evaluation of classes sees it, float32 [C, H, W] of that shape, normalised.

        Raises ValueError or OSError naming the file.
        """
        pixels = StoredImage(FolderImages.single(path), 0).centre(*shape)
        return normalise(torch.from_numpy(pixels)[None], *self.statistics())[0]

    def spaced_rows(self, count: int, batch_size: int) -> Sequence[Tensor]:
        """Return the rows of ``count`` evenly spaced training images, of all where there are no more, in batches of nearly
        equal length, none of fewer than batch_size where there are as many: batch norm takes no single image, and each batch
        weighs as much as another in a mean over batches."""
        total = len(self.splits.train)
        rows = torch.arange(min(count, total)) * total // min(count, total)
        return rows.tensor_split(max(len(rows) // batch_size, 1))

    def train_sampler(self) -> GlobalBatchSampler:
        """Return this rank's part of every global batch of an epoch, shuffled."""
        return GlobalBatchSampler(len(self.splits.train), self.batch_size, self.seed, *self.rank_and_world_size())

    def val_dataloader(self) -> DataLoader[Any]:
        """Return this rank's shard of the validation split, in order."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Return this rank's shard of the test split, in order; one loader per view where there are several."""
        return self._evaluation_loader("test")

    def rank_and_world_size(self) -> tuple[int, int]:
        """Return the rank of this process and the number of processes."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def root_device(self) -> torch.device:
        """Return the device of the network."""
        return self.device if self.trainer is None else self.trainer.strategy.root_device

    def _evaluation_loader(self, name: str) -> DataLoader[Any]:
        raise NotImplementedError

    def _evaluation_workers_loader(self, batches: Dataset[Any], count: int, batch_size: int) -> DataLoader[Any]:
        """Return the evaluation loader of batches of so many images that workers make from files."""
        sampler = evaluation_batches(count, batch_size, *self.rank_and_world_size())
        return DataLoader(batches, sampler=sampler, **loader_options(self._workers(), self._on_gpu()))

    def _workers(self) -> int:
        if self.loader_workers is None:
            return torch.get_num_threads() if self._on_gpu() else self.workers_on_cpu
        return self.loader_workers

    def _on_gpu(self) -> bool:
        return self.root_device().type == "cuda"
