"""The LightningDataModule of every data set that fits in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.augmentation.crops import Augmentation, check_statistics, normalise
from datamodules.augmentation.elastic import Elastic, ElasticDraws, Warped
from datamodules.augmentation.weight_map import checked_border_weights, class_weights, weight_maps
from datamodules.base import CPU, SplitDataModule
from datamodules.loading.batch import Batch, on_device
from datamodules.loading.batching import ResumableLoader, TrainRows, evaluation_batches, loader_options
from datamodules.readers.instances import InstanceSplit
from datamodules.readers.objects import crowded
from datamodules.readers.seeds import mix_seed
from datamodules.readers.slices import read_slices
from datamodules.readers.splits import Split, Splits


@dataclass(eq=False)
class TrainBatches(Dataset[Batch]):
    """Augmented batches; the augmentation is a pure function of (seed, epoch, batch, place in the global batch)."""

    split: Split
    augmentation: Augmentation
    mean: Tensor
    std: Tensor
    seed: int

    def __getitem__(self, item: TrainRows) -> Batch:
        device = self.split.images.device
        generator = torch.Generator().manual_seed(mix_seed("augmentation", self.seed, item.epoch, item.batch))
        height, width = self.split.images.shape[-2:]
        draws = self.augmentation.draw(len(item.global_rows), height, width, generator).part(item.first, len(item.rows))
        rows = on_device(item.rows, device)
        images, targets = self.split.images.index_select(0, rows), self.split.targets.index_select(0, rows)
        return self.augmentation.apply(images, targets, draws.to(device), self.mean, self.std)


@dataclass(eq=False)
class DeformedBatches(Dataset[Batch]):
    """Tiles cut out, deformed and weighted as U-Net's training has them; a pure function of (seed, epoch, image)."""

    split: Split
    elastic: Elastic
    weights: Tensor
    mean: Tensor
    std: Tensor
    seed: int

    def __getitem__(self, item: TrainRows) -> Batch:
        device = self.split.images.device
        draws = self.elastic.draw(self.seed, item.epoch, item.rows)
        placed = ElasticDraws(*(on_device(values, device) for values in draws))
        if self.split.sizes is not None:
            tiles = [
                self._tile(row, ElasticDraws(*(values[[place]] for values in placed)))
                for place, row in enumerate(item.rows.tolist())
            ]
            warped = Warped(*map(torch.cat, zip(*tiles, strict=True)))
        else:
            rows = on_device(item.rows, device)
            images, targets = self.split.images.index_select(0, rows), self.split.targets.index_select(0, rows)
            warped = self.elastic.apply(images, targets, self.weights.index_select(0, rows), placed)
        return Batch(normalise(warped.images, self.mean, self.std), warped.targets.long(), warped.weights)

    def _tile(self, row: int, draws: ElasticDraws) -> Warped:
        """Return a tile of one image, whose borders are mirrored where it ends in the arrays."""
        place = (slice(row, row + 1), ..., *self.split.extent(row))
        return self.elastic.apply(self.split.images[place], self.split.targets[place], self.weights[place], draws)


@dataclass(eq=False)
class EvaluationBatches(Dataset[Batch]):
    """Normalised batches of consecutive images."""

    split: Split
    mean: Tensor
    std: Tensor

    def __getitem__(self, item: range) -> Batch:
        # Images of different sizes come one by one.
        place = (slice(item.start, item.stop), ..., *self.split.extent(item.start))
        instances = self.split.instances[place] if isinstance(self.split, InstanceSplit) else None
        targets = self.split.targets[place if self.split.is_mask else place[0]]
        return Batch(normalise(self.split.images[place], self.mean, self.std), targets.long(), instances=instances)


def _pixels(split: Split, values: Tensor) -> Tensor:
    """Return the values [C, N, H, W] that are of images, [C, pixels]."""
    if split.sizes is None:
        return values.flatten(1)
    return torch.cat([values[(slice(None), row, *split.extent(row))].flatten(1) for row in range(len(split))], dim=1)


def _statistics(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel's pixels divided by 255; of a channel of one value the latter is 0.

    By counts of the 256 values, which takes the memory of an image, and is the same for any number of threads.
    """
    counts = torch.zeros(split.images.shape[1], 256, dtype=torch.int64)
    for row in range(len(split)):
        for channel, pixels in enumerate(split.images[(row, ..., *split.extent(row))]):
            counts[channel] += pixels.flatten().bincount(minlength=256)
    values, total = torch.arange(256, dtype=torch.float64) / 255, counts.sum(1)
    mean = (counts * values).sum(1) / total
    squares = (counts * (values - mean[:, None]) ** 2).sum(1)
    std = (squares / (total - 1)).sqrt().where((counts > 0).sum(1) > 1, 0)
    return tuple(mean.tolist()), tuple(std.tolist())


class InMemoryDataModule(SplitDataModule[Splits]):
    """Batches from decoded arrays; see SplitDataModule.

    augment: see Augmentation; or for masks elastic, the arguments of Elastic, and border_weights, those of border_weights,
    which needs elastic. mean, std: both null for those of the training split, std 1 for a channel of one value. cache_dir:
    where weight maps are kept.
    loader_workers: null for none; batches do not depend on it. Evaluation batches are slices and made here. On a GPU the
    arrays are copied there once, and all batches are made there, without loader_workers.
    Raises ValueError on arguments that contradict one another or the data: augment's at once, those of num_classes, sha256,
    mean, std and the image sizes in setup, batch sizes' when a loader is made, once the world size is known.
    """

    def __init__(self, *arguments: Any, cache_dir: str | Path = "cache", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.elastic, self.border_weights = None, None
        augment = self.augment
        if "border_weights" in augment and "elastic" not in augment:
            raise ValueError(
                "augment.border_weights is of the tiles that augment.elastic cuts: set both, or null for both"
            )
        if "elastic" in augment:
            if unknown := sorted(augment.keys() - {"elastic", "border_weights"}):
                raise ValueError(
                    f"augment takes elastic and border_weights together, and no {', '.join(unknown)} beside them"
                )
            try:
                self.elastic = Elastic(**augment["elastic"])
            except TypeError as error:
                raise ValueError(
                    "augment.elastic takes input_size and output_size, as [256, 256], and numbers as displacement, shift, "
                    f"rotation, contrast and brightness, where 0 changes nothing; got {augment['elastic']}"
                ) from error
            self.border_weights = checked_border_weights(augment.get("border_weights"))
        self.augmentation = Augmentation({} if self.elastic else augment)
        self.cache_dir = cache_dir
        self._copies: dict[str, Split] = {}

    def setup(self, stage: str | None = None) -> None:
        """Load the data and check it against num_classes, sha256, mean, std and augment."""
        super().setup(stage)
        train = self.splits.train
        self.image_size = train.images.shape[2:]
        if not self.mean and not self.std:
            self.mean, self.std = _statistics(train)
            if not any(self.std):
                raise ValueError("the training images must vary, all their pixels are of one grey value or colour")
            # A channel of one value, as two of a dye's in RGB, has no deviation to be divided by.
            self.std = tuple(std or 1.0 for std in self.std)
        check_statistics(self.mean, self.std, train.images.shape[1])
        self.augmentation.check(train)
        if any(split.sizes is not None for split in self.splits.named().values()):
            if self.elastic is None:
                raise ValueError(
                    "the images are of different sizes: a recipe that cuts tiles out of them is needed (augment.elastic), as "
                    "recipe=unet_image_mask_folder"
                )
            if self.eval_batch_size != 1:
                raise ValueError(f"images of different sizes need data.eval_batch_size=1, got {self.eval_batch_size}")

    def training_shape(self) -> list[int]:
        """Return the shape [C, H, W] of what is trained on: of a tile, where the recipe cuts some."""
        side = self.augmentation.crop_size
        return [
            len(self.mean),
            *(self.elastic.input_size if self.elastic else (side, side) if side else self.image_size),
        ]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return this rank's part of every global batch of an epoch, shuffled and augmented."""
        sampler, device = self.train_sampler(), self.root_device()
        mean, std = self.statistics(device)
        batches: Dataset[Batch]
        if self.elastic is not None:
            weights = self._weights(self.splits.train).to(device)
            batches = DeformedBatches(self._placed("train"), self.elastic, weights, mean, std, self.seed)
        else:
            batches = TrainBatches(self._placed("train"), self.augmentation, mean, std, self.seed)
        workers = self.loader_workers if device == CPU else None
        return ResumableLoader(batches, sampler, workers or 0)

    def training_images(self, count: int, batch_size: int) -> Iterator[Tensor]:
        """Yield evenly spaced training images, those of different sizes one by one; see SplitDataModule."""
        split, device = self._placed("train"), self.root_device()
        mean, std = self.statistics(device)
        for rows in self.spaced_rows(count, batch_size if split.sizes is None else 1):
            images = split.images.index_select(0, on_device(rows, device))
            yield normalise(images[(..., *split.extent(int(rows[0])))], mean, std)

    def read_slices(self, path: Path, channels: int, grey_range: Sequence[int] | None) -> tuple[Tensor, str]:
        """Return the slices of an image file as the network takes them, float32 [N, C, H, W], normalised; see read_slices."""
        pixels, remark = read_slices(path, channels, grey_range)
        return normalise(pixels, *self.statistics()), remark

    def manifest(self) -> dict[str, Any]:
        """Return the manifest with the share of the foreground and the range of grey values."""
        splits, foreground = self.splits, self.splits.foreground()
        share = [] if foreground is None else [f"foreground {100 * foreground:.1f} % of the training pixels"]
        return super().manifest() | {
            "notes": "; ".join(filter(None, [splits.notes, *share])),
            **({} if splits.grey_range is None else {"grey_range": list(splits.grey_range)}),
        }

    def remarks(self) -> list[str]:
        """Return the remarks of the source, one where test images hold more objects than their score counts, and one where most
        of the training pixels are foreground: masks may be inverted."""
        splits, foreground, remarks = self.splits, self.splits.foreground(), super().remarks()
        if isinstance(splits.test, InstanceSplit):
            instances = splits.test.instances
            remarks += crowded(np.array([int((labels.unique() > 0).sum()) for labels in instances]))
        if foreground is None or foreground <= 0.5 or splits.classes[0] != "background":
            return remarks
        inverted = (
            f"{100 * foreground:.0f} % of the training pixels are foreground, which in a mask of black and white is what a "
            "viewer shows white; if the objects are what it shows black, write the masks inverted"
        )
        return [*remarks, inverted]

    def _weights(self, train: Split) -> Tensor:
        if self.border_weights is None:
            return torch.ones(train.targets.shape)
        if not isinstance(train, InstanceSplit):
            raise ValueError("border weights need instance labels, and this data set has none: border_weights=null")
        balance = class_weights(_pixels(train, train.targets[None]), len(self.splits.classes))
        return weight_maps(train, balance, self.cache_dir, **self.border_weights)

    def _evaluation_loader(self, name: str) -> DataLoader[Batch]:
        split = self._placed(name)
        sampler = evaluation_batches(len(split), self.eval_batch_size, *self.rank_and_world_size())
        batches = EvaluationBatches(split, *self.statistics(self.root_device()))
        return DataLoader(batches, sampler=sampler, **loader_options())

    def _placed(self, name: str) -> Split:
        """Return a split, on the network's device."""
        if name not in self._copies:
            self._copies[name] = self.splits.named()[name].to(self.root_device())
        return self._copies[name]
