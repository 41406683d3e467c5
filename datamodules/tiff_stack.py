"""A volume and its labels as two multi-page TIFF files, the layout of the ISBI 2012 challenge (EM segmentation;
Arganda-Carreras et al., Frontiers in Neuroanatomy 9, 2015): train-volume.tif, train-labels.tif.

The labels of the challenge's own test volume are not public, so results are k-fold over the slices of this one.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
import torch

from datamodules.image_files import ByteScaling, check_same_size, class_mask
from datamodules.instances import InstanceSplit, components
from datamodules.splits import Splits

VOLUME, LABELS = "train-volume.tif", "train-labels.tif"


class _Complaints(logging.Handler):
    """Collects the errors that tifffile only logs: of a truncated file it returns the pages that are left."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def read_stack(path: Path) -> np.ndarray:
    """The slices of a TIFF file, [N, H, W] of its own dtype.

    Raises FileNotFoundError if it is missing and ValueError if it is damaged, holds colours or cannot be decompressed.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; a folder of this layout holds {VOLUME} and {LABELS}")
    complaints = _Complaints()
    logger = logging.getLogger("tifffile")
    logger.addHandler(complaints)
    try:
        with tifffile.TiffFile(path) as file:
            kinds = len(file.series)
            stack = file.asarray()
        if complaints.messages:
            raise ValueError(complaints.messages[0])
    except Exception as error:  # damaged files make tifffile raise what any codec raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} cannot be read as a TIFF stack ({reason}); fetch it again or write it uncompressed"
        ) from error
    finally:
        logger.removeHandler(complaints)
    if kinds != 1:
        raise ValueError(f"{path} must hold slices of one size and type, got {kinds} kinds")
    if stack.ndim == 2:
        stack = stack[None]
    if stack.ndim != 3 or stack.shape[-1] in (3, 4):
        raise ValueError(f"{path} must hold grey slices [N, H, W], got {list(stack.shape)}")
    return stack


def fold_rows(count: int, fold: int, folds: int, val_count: int) -> tuple[list[int], list[int], list[int]]:
    """Rows of train, val and test. test: the fold-th of `folds` runs of consecutive slices, so that each slice is tested
    in exactly one fold. val: the val_count slices that follow, the first ones after the last. train: all others.

    Neighbouring slices resemble one another; runs keep the places few where train meets test.
    Raises ValueError on a fold outside 0..folds-1, on more folds than slices and if nothing is left to train on.
    """
    if not 2 <= folds <= count:
        raise ValueError(f"folds must lie in 2..{count}, the number of slices, got {folds}")
    if not 0 <= fold < folds:
        raise ValueError(f"fold must lie in 0..{folds - 1}, got {fold}")
    start, stop = count * fold // folds, count * (fold + 1) // folds
    rest = [row % count for row in range(stop, start + count)]
    if not 1 <= val_count < len(rest):
        raise ValueError(f"val_count must lie in 1..{len(rest) - 1}, to leave slices to train on, got {val_count}")
    return sorted(rest[val_count:]), sorted(rest[:val_count]), list(range(start, stop))


def load_tiff_stack(
    path: str | Path, fold: int, folds: int, val_count: int = 3, classes: Sequence[str] = ("membrane", "cell")
) -> Splits:
    """Slices of one volume: images uint8 [N, 1, H, W], masks uint8 [N, H, W], instances the 4-connected components.

    path: a folder with train-volume.tif (8 or 16 bits) and train-labels.tif (0 and 255, or 0..K-1). fold, folds,
    val_count: see fold_rows. 16-bit slices are scaled by those to train on.
    Raises FileNotFoundError on missing files; ValueError on damaged ones, on counts or sizes that differ, on labels that
    are no classes or empty, naming file and slice, and on impossible folds.
    """
    volume_path, labels_path = Path(path) / VOLUME, Path(path) / LABELS
    volume, labels = read_stack(volume_path), read_stack(labels_path)
    if len(volume) != len(labels):
        raise ValueError(f"{volume_path} holds {len(volume)} slices, {labels_path} {len(labels)}; they must be as many")
    if volume.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{volume_path} must hold 8 or 16 bits per pixel, got {volume.dtype}")
    if labels.dtype.kind not in "bui":
        raise ValueError(f"{labels_path} must hold integers, got {labels.dtype}")
    check_same_size(volume[0], labels[0], str(volume_path), str(labels_path))
    masks = np.stack(
        [
            class_mask(slice_.astype(np.int64), classes, f"{labels_path} slice {row}")
            for row, slice_ in enumerate(labels)
        ]
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
        notes="; ".join([protocol, *scaling.notes(volume)]),
    )
