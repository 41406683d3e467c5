"""COCO (Lin et al., ECCV 2014), and any folder of images with an annotation file in its format."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.readers import preparation
from datamodules.readers.coco_file import CocoFile, read_coco_file
from datamodules.readers.encoded import NAMES_AND_SIZES
from datamodules.readers.image_files import check_channels
from datamodules.readers.listing import size_of
from datamodules.readers.objects import Objects, ObjectSplits, crowded
from datamodules.readers.parts import drawn_note, part_folders
from datamodules.readers.photographs import read_photograph
from datamodules.readers.splits import check_counts, hold_out


@dataclass(frozen=True, eq=False)
class CocoImages:
    """Some images of an annotation file. folder: where the files lie. rows: int64 [n], of the file. channels: 1 for grey, 3 for
    colour. Raises ValueError on other channels."""

    annotations: CocoFile
    folder: Path
    rows: np.ndarray
    channels: int
    sizes: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        check_channels(self.channels)
        object.__setattr__(self, "sizes", self.annotations.sizes[self.rows])

    def __len__(self) -> int:
        return len(self.rows)

    def image(self, row: int) -> np.ndarray:
        """Return the pixels, as stored or turned as the camera noted (EXIF), whichever has the annotated size."""
        height, width = self.sizes[row].tolist()
        path = self.folder / self.annotations.names[self.rows[row]]
        return read_photograph(path, height, width, self.channels, self.annotations.path)

    def objects(self, row: int) -> Objects:
        """Return the objects in the order of the file."""
        return self.annotations.objects(int(self.rows[row]))

    def digest(self, digest: Any) -> None:
        """Add names and sizes of the images, sizes of their files, the classes and all annotations."""
        digest.update(f"{list(self.annotations.classes)}\n".encode())
        for row in self.rows.tolist():
            name, size = self.annotations.names[row], self.annotations.sizes[row].tolist()
            digest.update(f"{name} {size} {size_of(self.folder / name)}\n".encode())
        digest.update(hashlib.sha256(self.annotations.annotations.tobytes()).digest())


def load_coco(path: str | Path, in_channels: int, val_count: int, keep_empty: bool = False) -> ObjectSplits:
    """Return COCO 2017: val is val_count images drawn out of train2017, test is val2017.

    path: a folder with annotations/instances_train2017.json and instances_val2017.json, train2017/ and val2017/.
    keep_empty: whether images without an object to be learned are trained on.
    Raises FileNotFoundError on missing files, naming the first image and counting the others; ValueError as read_coco_file, on
    other categories in val2017, on a val_count that leaves nothing and on a split without objects; ImportError without
    pycocotools.
    """
    path = Path(path)
    train, test = (read_coco_file(path / "annotations" / f"instances_{name}2017.json") for name in ("train", "val"))
    _check_alike(train, test, "; data=coco_folder reads a set of one's own")
    check_counts({"val": val_count}, len(train.names), f"images of {train.path}")
    rest, held_out = hold_out(np.zeros(len(train.names), np.int64), val_count, seed=0)
    return _splits(
        CocoImages(train, path / "train2017", rest, in_channels),
        CocoImages(train, path / "train2017", held_out, in_channels),
        CocoImages(test, path / "val2017", np.arange(len(test.names)), in_channels),
        keep_empty,
        (f"{val_count} validation images drawn out of train2017", *train.notes, *test.notes),
    )


def load_coco_folder(
    path: str | Path,
    annotations: str,
    images: str,
    in_channels: int,
    val_count: int,
    test_count: int,
    keep_empty: bool = False,
    split_seed: int = 0,
) -> ObjectSplits:
    """Return a data set of one annotation file, drawn into train, val and test by split_seed, or of a file for each of them.

    path: a folder, or one with train/, val/ and test/; see part_folders. What is missing of val and test is drawn from train.
    annotations, images: the file and the folder of images, "." for the file's own, in it or in each of these. keep_empty: see
    load_coco.
    Raises FileNotFoundError, ValueError and ImportError as load_coco.
    """
    folders, remarks = part_folders(Path(path), lambda folder: (folder / annotations).is_file())
    files = {part: read_coco_file(folder / annotations) for part, folder in folders.items()}
    rows = {part: np.arange(len(file.names)) for part, file in files.items()}
    drawn = {part: count for part, count in (("val", val_count), ("test", test_count)) if part not in files}
    check_counts(drawn, len(rows["train"]), f"images of {files['train'].path}")
    for part in reversed(drawn):
        rest, held_out = hold_out(np.zeros(len(rows["train"]), np.int64), drawn[part], split_seed)
        rows |= {part: rows["train"][held_out], "train": rows["train"][rest]}
    parts = []
    for part in ("train", "val", "test"):
        source = part if part in files else "train"
        _check_alike(files["train"], files[source])
        parts.append(CocoImages(files[source], folders[source] / images, rows[part], in_channels))
    file_notes = dict.fromkeys(note for file in files.values() for note in file.notes)
    return _splits(parts[0], parts[1], parts[2], keep_empty, (*drawn_note(drawn, split_seed), *file_notes), remarks)


def _check_alike(train: CocoFile, other: CocoFile, instead: str = "") -> None:
    if (train.category_ids, train.classes) != (other.category_ids, other.classes):
        raise ValueError(f"{train.path} and {other.path} must have the same categories, ids and names{instead}")
    if train.masks != other.masks:
        boxes, masks = (train, other) if other.masks else (other, train)
        raise ValueError(
            f"{boxes.path} has boxes alone and {masks.path} masks, too; one network learns and is tested on the same"
        )


def _splits(
    train: CocoImages,
    val: CocoImages,
    test: CocoImages,
    keep_empty: bool,
    notes: Sequence[str],
    remarks: Sequence[str] = (),
) -> ObjectSplits:
    for split in {split.annotations.path: split for split in (train, val, test)}.values():
        _check_files(split)
    for name, split in (("validation", val), ("test", test)):
        if not split.annotations.learnable[split.rows].any():
            raise ValueError(
                f"{split.annotations.path}: the {len(split)} {name} images hold no object, which leaves no AP; annotate "
                "some or, where they are drawn, raise data.val_count and data.test_count"
            )
    empty = ~train.annotations.learnable[train.rows]
    if not keep_empty and empty.any():
        train = CocoImages(train.annotations, train.folder, train.rows[~empty], train.channels)
        notes = (*notes, f"{int(empty.sum())} training images without objects left out")
    if not len(train):
        raise ValueError(f"{train.annotations.path} has no object to learn in the training images")
    return ObjectSplits(
        train,
        val,
        test,
        train.annotations.classes,
        category_ids=train.annotations.category_ids,
        notes="; ".join((*notes, NAMES_AND_SIZES)),
        remarks=(*remarks, *crowded(test.annotations.counts[test.rows])),
    )


def _check_files(split: CocoImages) -> None:
    """Raise FileNotFoundError unless every image of the annotation file is there. Folders are listed: faster than asking for
    each of 100,000 files."""
    names = split.annotations.names
    folders = sorted({os.path.dirname(name) for name in names})
    present = set()
    for folder in preparation.counted(f"listing images of {split.folder.name}", folders):
        if (split.folder / folder).is_dir():
            with os.scandir(split.folder / folder) as entries:
                present |= {os.path.join(folder, entry.name) for entry in entries}
    if missing := [name for name in names if os.path.join(*os.path.split(name)) not in present]:
        others = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise FileNotFoundError(
            f"{split.folder / missing[0]} is missing{others} of the {len(names)} images in {split.annotations.path}"
        )
