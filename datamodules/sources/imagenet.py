"""ImageNet's encoded images on this machine: folders of classes, or the parquet files of the hub's ILSVRC/imagenet-1k."""

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from datamodules.readers import hub as hub_files
from datamodules.readers import preparation
from datamodules.readers.decoded import whole_file
from datamodules.readers.encoded import NAMES_AND_SIZES, FolderImages, ImageFiles, ImageSplit, ImageSplits, PackedImages
from datamodules.readers.listing import contents, list_folder, size_of, stray_note
from datamodules.readers.splits import hold_out_each

_WNID = re.compile(r"n\d{8}")
_SUFFIXES = (".jpeg", ".jpg")
_COPYING = "copying images from parquet"
_LOOK_S = 0.5


def load_imagenet(
    path: str | Path,
    num_classes: int,
    train_count: int | None,
    test_count: int | None,
    val_per_class: int,
    cache_dir: str | Path,
    hub: bool = False,
) -> ImageSplits:
    """Return ImageNet, or another set in its layout: val is val_per_class images of each class out of train, test ILSVRC's val.

    path: a folder with train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, classes in the order of their WordNet ids; or one with
    train-*.parquet and validation-*.parquet of the hub's ILSVRC/imagenet-1k (needs the extra `parquet`). A row of these
    cannot be read without its neighbours, so the encoded images are copied to cache_dir once, 150 GB for ImageNet.
    num_classes, train_count, test_count: what there must be; a count of null is not checked. hub: fetch the parquet files
    into path where it holds nothing.
    Raises FileNotFoundError on missing folders; ValueError on foreign, empty or damaged files, on other classes or counts
    and where a class has no more than val_per_class images. ImportError without pyarrow when the files are parquet.
    """
    path = Path(path)
    train: ImageFiles
    test: ImageFiles
    notes = [NAMES_AND_SIZES]
    if (path / "train").is_dir() or (path / "val").is_dir():
        classes, train, test, strays = _read_folders(path, num_classes)
        notes += stray_note(strays)
    else:
        patterns = ["data/train-*.parquet", "data/validation-*.parquet"]
        shards = hub_files.find_or_fetch(partial(_find_shards, path), hub, "ILSVRC/imagenet-1k", patterns, path)
        classes, train, test = _read_shards(*shards, num_classes, Path(cache_dir))
        notes += filter(None, [hub_files.snapshot_note(shards[0])])
    for name, files, count in (("training", train, train_count), ("validation", test, test_count)):
        if count is not None and len(files.labels) != count:
            raise ValueError(
                f"{path} must hold {count} {name} images, got {len(files.labels)}; fetch it again, or set "
                "data.train_count and data.test_count for another set"
            )
    rest, held_out = hold_out_each(train.labels, val_per_class, seed=0)
    every = np.arange(len(test.labels))
    return ImageSplits(
        ImageSplit(train, rest), ImageSplit(train, held_out), ImageSplit(test, every), classes, notes="; ".join(notes)
    )


# Folders


def _read_folders(root: Path, num_classes: int) -> tuple[tuple[str, ...], FolderImages, FolderImages, int]:
    """Return the classes, the images of train and val, and the number of stray files."""
    (classes, *strays), (of_val, *more) = (_class_folders(root / part) for part in ("train", "val"))
    if len(classes) != num_classes:
        raise ValueError(f"{root / 'train'} must hold {num_classes} class folders, got {len(classes)}; unpack all")
    if differing := sorted(set(classes) ^ set(of_val)):
        raise ValueError(f"{root}/train and val must hold the same classes, {differing[0]} is in one of them alone")
    (train, *of_train), (test, *of_test) = (_list_images(root / part, classes) for part in ("train", "val"))
    return classes, train, test, sum([*strays, *more, *of_train, *of_test])


def _class_folders(folder: Path) -> tuple[tuple[str, ...], int]:
    """Return the names of the class folders, and the number of stray files beside them."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing; put class folders with the JPEG files of ILSVRC 2012 there")
    entries, strays = list_folder(folder)
    for entry in entries:
        size_of(entry)
        if _WNID.fullmatch(entry.name) and entry.is_dir():
            continue
        hint = (
            ": sort the images into folders of classes (valprep.sh)" if entry.name.lower().endswith(_SUFFIXES) else ""
        )
        raise ValueError(f"{entry.path} is no folder named by a WordNet id (n01440764){hint}")
    return tuple(entry.name for entry in entries), strays


def _list_images(folder: Path, classes: Sequence[str]) -> tuple[FolderImages, int]:
    """Return the images of the classes, and the number of stray files among them."""
    paths: list[bytes] = []
    sizes: list[int] = []
    counts: list[int] = []
    strays = 0
    for name in preparation.counted(f"listing images of {folder.name}", classes):
        entries, skipped = list_folder(folder / name)
        strays += skipped
        if not entries:
            raise ValueError(f"{folder / name} is empty; unpack that class again")
        for entry in entries:
            if not entry.name.lower().endswith(_SUFFIXES):
                raise ValueError(f"{entry.path} is not named *.JPEG; remove what is not of ImageNet")
            size = size_of(entry)
            if size == 0:
                raise ValueError(f"{entry.path} is empty; fetch it again")
            paths.append(os.fsencode(f"{name}/{entry.name}"))
            sizes.append(size)
        counts.append(len(entries))
    # Arrays, not lists: a loader's workers would copy a million objects' pages by counting references to them.
    labels = np.repeat(np.arange(len(classes)), counts)
    return FolderImages(folder, np.array(paths), np.array(sizes), labels), strays


# Parquet


def _find_shards(path: Path) -> tuple[list[Path], list[Path]]:
    shards = hub_files.shards(path, "train"), hub_files.shards(path, "validation")
    if not all(shards):
        raise FileNotFoundError(
            f"{path} holds no ImageNet, {contents(path)}; put the folders train/<wnid>/*.JPEG and val/<wnid>/*.JPEG of ILSVRC "
            "2012 (www.image-net.org), or train-*.parquet and validation-*.parquet of the hub's ILSVRC/imagenet-1k there"
        )
    return shards


def _read_shards(
    train: list[Path], validation: list[Path], num_classes: int, cache_dir: Path
) -> tuple[tuple[str, ...], PackedImages, PackedImages]:
    facts = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in (*train, *validation)]
    folder = cache_dir / f"imagenet-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    copies = {
        shard: folder / f"{_copy_name(part, shard)}.bin"
        for part, shards in (("train", train), ("validation", validation))
        for shard in shards
    }
    with open(folder / "lock", "w") as lock:
        _wait_for(lock, folder, len(facts))  # of all processes one copies
        for shard in preparation.counted(_COPYING, list(copies)):
            if not copies[shard].with_suffix(".npz").is_file():
                _unpack(shard, copies[shard])
    packed = [_packed(folder, [copies[shard] for shard in shards]) for shards in (train, validation)]
    for files, shards in zip(packed, (train, validation), strict=True):
        present = set(files.labels.tolist())
        if present != set(range(num_classes)):
            raise ValueError(
                f"{shards[0].parent}/{shards[0].name.split('-')[0]}-*.parquet must hold the classes 0..{num_classes - 1}, "
                f"got {len(present)} classes {min(present)}..{max(present)}; fetch all files"
            )
    names = _class_names(train[0])
    return names if len(names) == num_classes else tuple(map(str, range(num_classes))), packed[0], packed[1]


def _copy_name(part: str, shard: Path) -> str:
    """Return <part>-<i>-of-<n>, or <part>-<i> of a converted set, whose parts number files of the same names."""
    return shard.stem if shard.stem.startswith(f"{part}-") else f"{part}-{shard.stem}"


def _wait_for(lock: IO[str], folder: Path, shards: int) -> None:
    """Take the lock once its holder has copied the shards, and report how far that is: a wait is no hang."""
    copied = -1
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if copied != (copied := len(list(folder.glob("*.npz")))):
                preparation.listener()(_COPYING, copied, shards)
            time.sleep(_LOOK_S)


def _unpack(shard: Path, copy: Path) -> None:
    """Copy the images of a shard to `copy`, their sizes and classes to the .npz beside it, which is there once all is."""
    sizes: list[int] = []
    labels: list[int] = []
    with whole_file(copy) as out:
        for row, (image, label) in enumerate(hub_files.rows(shard, "image", "label")):
            if not image:
                raise ValueError(f"{shard} row {row} has no image.bytes, and a path alone is not read")
            sizes.append(out.write(image))
            labels.append(label)
    with whole_file(copy.with_suffix(".npz")) as out:
        np.savez(out, sizes=np.array(sizes, dtype=np.int64), labels=np.array(labels, dtype=np.int64))


def _packed(folder: Path, paths: Sequence[Path]) -> PackedImages:
    sizes, labels = [], []
    for path in paths:
        try:
            with np.load(path.with_suffix(".npz")) as index:
                sizes.append(index["sizes"])
                labels.append(index["labels"])
            if path.stat().st_size != sizes[-1].sum():
                raise ValueError(f"{path.stat().st_size} bytes of {sizes[-1].sum()}")
        except (ValueError, OSError, KeyError) as error:
            raise ValueError(f"the cache {folder} is damaged ({error}); delete that folder and run again") from error
    offsets = [np.cumsum(part) - part for part in sizes]
    files = np.repeat(np.arange(len(paths)), [len(part) for part in sizes])
    return PackedImages(paths, files, np.concatenate(offsets), np.concatenate(sizes), np.concatenate(labels))


def _class_names(shard: Path) -> tuple[str, ...]:
    """Return the names in the hub's metadata, () where it has none."""
    with hub_files.opened(shard, "image", "label") as file:
        metadata = file.schema_arrow.metadata or {}
    features: Any = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return tuple(features.get("label", {}).get("names", ()))
