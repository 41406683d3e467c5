"""A volume and its labels as two multi-page TIFF files, the layout of the ISBI 2012 challenge (EM segmentation;
Arganda-Carreras et al., Frontiers in Neuroanatomy 9, 2015): train-volume.tif, train-labels.tif.

The labels of the challenge's own test volume are not public, so results are k-fold over the slices of this one.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from datamodules.readers.image_files import ByteScaling, check_same_size
from datamodules.readers.instances import InstanceSplit, components
from datamodules.readers.masks import check_not_empty, class_mask
from datamodules.readers.splits import Splits, check_counts
from datamodules.readers.tiff_stacks import LABELS, VOLUME, read_label_stack, read_stack


def fold_rows(count: int, fold: int, folds: int, val_count: int) -> tuple[list[int], list[int], list[int]]:
    """Return the rows of train, val and test. test: the fold-th of `folds` runs of consecutive slices, so that each slice is
    tested in exactly one fold. val: the val_count slices that follow, the first ones after the last. train: all others.

    Neighbouring slices resemble one another; runs keep the places few where train meets test.
    Raises ValueError on a fold outside 0..folds-1, on more folds than slices and if nothing is left to train on.
    """
    if not 2 <= folds <= count:
        raise ValueError(f"folds must lie in 2..{count}, the number of slices, got {folds}")
    if not 0 <= fold < folds:
        raise ValueError(f"fold must lie in 0..{folds - 1}, got {fold}")
    start, stop = count * fold // folds, count * (fold + 1) // folds
    rest = [row % count for row in range(stop, start + count)]
    check_counts({"val": val_count}, len(rest), "slices that are not tested")
    return sorted(rest[val_count:]), sorted(rest[:val_count]), list(range(start, stop))


def load_tiff_stack(
    path: str | Path, fold: int, folds: int, val_count: int = 3, classes: Sequence[str] = ("membrane", "cell")
) -> Splits:
    """Return the slices of one volume: images uint8 [N, 1, H, W], masks uint8 [N, H, W], instances the 4-connected components.

    path: a folder with train-volume.tif (8 or 16 bits) and train-labels.tif (0 and 255, or 0..K-1). fold, folds,
    val_count: see fold_rows. 16-bit slices are scaled by those to train on.
    Raises FileNotFoundError on missing files; ValueError on damaged ones, on counts or sizes that differ, on labels that
    are no classes or empty, naming file and slice, and on impossible folds.
    """
    volume_path, labels_path = Path(path) / VOLUME, Path(path) / LABELS
    volume, labels = read_stack(volume_path), read_label_stack(labels_path)
    if len(volume) != len(labels):
        raise ValueError(f"{volume_path} holds {len(volume)} slices, {labels_path} {len(labels)}; they must be as many")
    if volume.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{volume_path} must hold 8 or 16 bits per pixel, got {volume.dtype}")
    if labels.dtype.kind not in "bui":
        raise ValueError(f"{labels_path} must hold integers, got {labels.dtype}")
    check_same_size(volume[0], labels[0], str(volume_path), str(labels_path))
    for row, label in enumerate(labels):
        check_not_empty(label, f"{labels_path} slice {row}")
    masks = np.stack(
        [class_mask(label.astype(np.int64), classes, f"{labels_path} slice {row}") for row, label in enumerate(labels)]
    )
    instances = np.stack([components(mask) for mask in masks])

    train, val, test = fold_rows(len(volume), fold, folds, val_count)
    scaling = ByteScaling.of(volume[train])
    images = scaling(volume)[:, None]

    def split(rows: list[int]) -> InstanceSplit:
        return InstanceSplit(*(torch.from_numpy(array[rows]) for array in (images, masks, instances)))

    protocol = (
        f"fold {fold} of {folds} (from 0) over the {len(volume)} slices of one volume: tests {test[0]}..{test[-1]}"
    )
    return Splits(
        train=split(train),
        val=split(val),
        test=split(test),
        classes=tuple(classes),
        notes="; ".join([protocol, *scaling.notes()]),
        grey_range=scaling.grey_range,
    )
