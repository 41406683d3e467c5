"""The LightningDataModule of detection: images of any size with any number of objects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.augmentation.crops import check_statistics, normalise
from datamodules.augmentation.objects import ObjectAugmentation, ObjectDraw, resized, scaled_size, targets_of
from datamodules.base import SplitDataModule
from datamodules.loading.batch import ObjectBatch
from datamodules.loading.batching import GlobalBatchSampler, GroupedBatchSampler, ResumableLoader, TrainRows
from datamodules.readers import rle
from datamodules.readers.image_files import stored_orientation
from datamodules.readers.objects import InstanceMaps, Objects, ObjectSplit, ObjectSplits
from datamodules.readers.seeds import mix_seed
from datamodules.readers.slices import read_slices


@dataclass(eq=False)
class _Batches:
    """Normalised images side by side in a batch, each in its upper left corner; the rest is 0, the mean colour."""

    split: ObjectSplit
    mean: Tensor
    std: Tensor
    pad_multiple: int

    def empty(self, count: int, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Return zeros for so many images, large enough for every size, a multiple of pad_multiple."""
        height, width = (
            -(-max(lengths) // self.pad_multiple) * self.pad_multiple for lengths in zip(*sizes, strict=True)
        )
        return torch.zeros(count, len(self.mean), height, width)

    def put(self, image: Tensor, pixels: np.ndarray) -> None:
        """Write pixels [H, W] or [H, W, C], normalised, into an image of the batch."""
        channels = torch.from_numpy(np.ascontiguousarray(pixels)).view(*pixels.shape[:2], -1).permute(2, 0, 1)
        image[:, : pixels.shape[0], : pixels.shape[1]] = normalise(channels, self.mean, self.std)


@dataclass(eq=False)
class TrainObjects(_Batches, Dataset[ObjectBatch]):
    """Augmented batches; the augmentation is a pure function of (seed, epoch, image), and a batch is padded to the size of
    the global batch, so that nothing depends on the number of processes."""

    augmentation: ObjectAugmentation
    seed: int

    def __getitem__(self, item: TrainRows) -> ObjectBatch:
        draws = [self._draw(item.epoch, row) for row in item.global_rows.tolist()]
        images = self.empty(len(item.rows), [draw.size for draw in draws])
        targets = []
        for place, row in enumerate(item.rows.tolist()):
            draw = draws[item.first + place]
            height, width = self.split.sizes[row].tolist()
            objects = targets_of(self.split.objects(row), height, width)
            pixels, objects = self.augmentation.apply(self.split.image(row), objects, draw)
            self.put(images[place], pixels)
            before = (height, width) if draw.window is None else draw.window[2:]
            targets.append(target(objects, row, before, draw.size) | {"boxes": torch.from_numpy(objects.boxes).float()})
        return ObjectBatch(images, targets)

    def _draw(self, epoch: int, row: int) -> ObjectDraw:
        generator = torch.Generator().manual_seed(mix_seed("augmentation", self.seed, epoch, row))
        height, width = self.split.sizes[row].tolist()
        return self.augmentation.draw(height, width, generator)


@dataclass(eq=False)
class EvaluationObjects(_Batches, Dataset[ObjectBatch]):
    """Batches of consecutive images with all their objects. shorter_side, longest_side: see scaled_size; None: no scaling."""

    shorter_side: int | None
    longest_side: int | None

    def __getitem__(self, item: range) -> ObjectBatch:
        sizes = before = [(height, width) for height, width in self.split.sizes[item.start : item.stop].tolist()]
        if self.shorter_side is not None:
            sizes = [scaled_size(*size, self.shorter_side, self.longest_side) for size in before]
        images = self.empty(len(item), sizes)
        targets = []
        for image, row, old, new in zip(images, item, before, sizes, strict=True):
            self.put(image, resized(self.split.image(row), new))
            objects = self.split.objects(row)
            known = {"boxes": objects.boxes, "crowd": objects.crowd, "area": objects.area}
            targets.append(
                target(objects, row, old, new) | {name: torch.from_numpy(values) for name, values in known.items()}
            )
        return ObjectBatch(images, targets)


def target(objects: Objects, row: int, before: tuple[int, ...], size: tuple[int, int]) -> dict[str, Tensor]:
    """Return what training and evaluation know of an image: see ObjectBatch. before: its size before scaling."""
    values = {
        "labels": torch.from_numpy(objects.labels),
        "scale": torch.tensor([size[1] / before[1], size[0] / before[0]]),
        "size": torch.tensor(size),
        "image": torch.tensor(row),
    }
    if objects.masks is not None:
        values["masks"] = torch.from_numpy(np.ascontiguousarray(objects.masks))
    return values


class ObjectDataModule(SplitDataModule[ObjectSplits]):
    """Batches of images with objects, the same at any number of workers and processes; see SplitDataModule.

    eval_batch_size: 1 where images differ in size, as those of one batch are padded to one size. augment: see
    ObjectAugmentation. pad_multiple: what the sides of a batch are a multiple of. shorter_side, longest_side: what evaluation
    scales an image to.
    Raises ValueError on arguments that contradict one another or the data, those of augment at once, others in setup; and for
    an image or annotation that cannot be read when it is needed.
    """

    def __init__(
        self,
        *arguments: Any,
        image_size: Sequence[int],
        pad_multiple: int = 32,
        shorter_side: int | None = None,
        longest_side: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        if longest_side is not None and shorter_side is None:
            raise ValueError("data.longest_side limits what data.shorter_side scales: give both, or null for both")
        self.image_size = image_size
        self.augmentation = ObjectAugmentation(self.augment)
        self.pad_multiple = pad_multiple
        self.shorter_side = shorter_side
        self.longest_side = longest_side

    def setup(self, stage: str | None = None) -> None:
        """Load or list the data and check it."""
        super().setup(stage)
        splits = self.splits
        pixels = splits.train.image(0)
        check_statistics(self.mean, self.std, 1 if pixels.ndim == 2 else pixels.shape[2])
        self.augmentation.check(splits.train.sizes, splits.upright)

    def train_sampler(self) -> GlobalBatchSampler:
        """Return this rank's part of every global batch of an epoch, shuffled; upright and wide images in batches of their own,
        as padding costs time."""
        sizes = self.splits.train.sizes
        if self.augmentation.crop_size:
            return super().train_sampler()
        wide = torch.from_numpy(sizes[:, 1] > sizes[:, 0])
        return GroupedBatchSampler(wide, self.batch_size, self.seed, *self.rank_and_world_size())

    def train_dataloader(self) -> DataLoader[ObjectBatch]:
        """Return this rank's part of every global batch of an epoch, shuffled and augmented."""
        batches = TrainObjects(self.splits.train, *self.statistics(), self.pad_multiple, self.augmentation, self.seed)
        return ResumableLoader(batches, self.train_sampler(), self._workers(), pin_memory=self._on_gpu())

    def read(self, path: Path, channels: int) -> tuple[ObjectBatch, np.ndarray, str]:
        """Return an image file as a batch of one, as evaluation has it, its pixels uint8 [H, W] or [H, W, 3], and what is to be
        said of it, "" normally.

        Raises ValueError or FileNotFoundError naming the file.
        """
        slices, remark = read_slices(path, channels, None, to_grey=True)  # as those that it was trained on
        if len(slices) != 1:
            raise ValueError(f"{path} must hold one image, got {len(slices)} slices; write each into a file of its own")
        pixels = slices[0].round().byte().permute(1, 2, 0).numpy()
        pixels = pixels[..., 0] if channels == 1 else pixels
        no_objects = np.zeros((1, *pixels.shape[:2]), np.int32)
        batches = self._evaluated(InstanceMaps(pixels[None], no_objects))
        return batches[range(1)], pixels, remark

    @staticmethod
    def is_turned(path: Path) -> bool:
        """Return whether ``read`` turns an image file, as its camera noted (EXIF)."""
        return stored_orientation(path) in range(2, 9)

    @staticmethod
    def results(
        prediction: Mapping[str, Tensor], image_id: int | str, category_ids: Sequence[int]
    ) -> list[dict[str, Any]]:
        """Return the objects that were found in an image as COCO's results have them; masks as text of run lengths.

        prediction: boxes [n, 4], scores and labels [n], and masks [n, H, W] where the network makes them.
        """
        results = []
        for place, (label, score) in enumerate(
            zip(prediction["labels"].tolist(), prediction["scores"].tolist(), strict=True)
        ):
            x0, y0, x1, y1 = prediction["boxes"][place].tolist()
            result = {
                "image_id": image_id,
                "category_id": category_ids[label],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": score,
            }
            if "masks" in prediction:
                mask = prediction["masks"][place].cpu().numpy()
                result["segmentation"] = {"size": list(mask.shape), "counts": rle.to_text(rle.encode(mask))}
            results.append(result)
        return results

    def manifest(self) -> dict[str, Any]:
        """Return the manifest with what an annotation file calls the classes."""
        return super().manifest() | {"category_ids": list(self.splits.category_ids)}

    def _evaluated(self, split: ObjectSplit) -> EvaluationObjects:
        return EvaluationObjects(split, *self.statistics(), self.pad_multiple, self.shorter_side, self.longest_side)

    def _evaluation_loader(self, name: str) -> DataLoader[ObjectBatch]:
        split = self.splits.named()[name]
        return self._evaluation_workers_loader(self._evaluated(split), len(split), self.eval_batch_size)
