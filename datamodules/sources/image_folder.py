"""Anyone's images, a folder for each class: all in one place, or within train/, val/ and test/."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from datamodules.readers import preparation
from datamodules.readers.decoded import Decoded, Part, decoded_once, gather
from datamodules.readers.encoded import FolderImages
from datamodules.readers.image_files import SUFFIXES
from datamodules.readers.listing import as_utf8, list_folder, size_of, stray_note
from datamodules.readers.pairs import are_pairs
from datamodules.readers.parts import part_folders
from datamodules.readers.splits import Splits, part_by_name, repeated
from datamodules.readers.stored_image import StoredImage


def load_image_folder(
    path: str | Path,
    image_size: Sequence[int],
    in_channels: int,
    cache_dir: str | Path,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
) -> Splits:
    """Return images uint8 [N, C, H, W]: the centre of each, scaled to image_size, height and width.

    path: a folder with a folder of images for each class, or one with train/, which has them, and test/ and val/ (or valid/,
    validation/), where there are such. What is missing of val and test is drawn from the others: val_fraction and
    test_fraction of each class, at least one image, by a hash of the images' names, so that neither the seed nor another
    place nor further images of other names change where an image belongs. Where there is val/ and no test/, it is the test
    set, and val is drawn from train/. in_channels: 3, or 1 for grey. The images are decoded once and kept in a subfolder of
    cache_dir; see decoded_once.
    Raises FileNotFoundError on missing folders, ValueError on empty ones, on two folders of validation images, on files that
    are no images of a known kind or of 16 bits, naming them, on folders of images and masks, on classes whose names are no
    UTF-8, and on those that differ between the parts or are too small.
    """
    root, size = Path(path), (int(image_size[0]), int(image_size[1]))
    if in_channels not in (1, 3):
        raise ValueError(f"data.in_channels of photographs is 3, or 1 for grey, got {in_channels}")
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is missing; data.root is a folder with a folder of images for each class")
    for entry in list_folder(root)[0]:
        size_of(entry)  # a class or a part that leads nowhere would be left out
    # A class may be called train, too: it holds no folders.
    folders, remarks = part_folders(root, lambda train: any(entry.is_dir() for entry in list_folder(train)[0]))
    strays = 0
    classes, _ = _class_folders(folders["train"])
    if are_pairs(classes):
        raise ValueError(
            f"{folders['train']} holds images and their masks, not a folder for each class: data=image_mask_folder"
        )
    files = {}
    for part, folder in folders.items():
        names, skipped = _class_folders(folder)
        if part != "train" and not names:
            raise ValueError(
                f"{folder} holds no folder of a class; put its images there, or remove it to have them drawn"
            )
        if unknown := sorted(set(names) - set(classes)):
            raise ValueError(f"{folder / unknown[0]} is of a class that {folders['train']} does not have")
        files[part], more = _list_images(folder, classes)
        strays += skipped + more
    if len(classes) < 2:
        raise ValueError(f"{folders['train']} must hold a folder for each of two classes or more, got {len(classes)}")

    drawn = {"val": val_fraction, "test": test_fraction}
    drawn = {part: fraction for part, fraction in drawn.items() if part not in files}
    labels = files["train"].labels
    for label, count in enumerate(np.bincount(labels, minlength=len(classes)).tolist()):
        if count <= len(drawn):
            needed = ", ".join(["train", *drawn])
            raise ValueError(
                f"{folders['train'] / classes[label]} holds {count} images, {needed} need one each at least"
            )
    by_name = [files["train"].name(row) for row in range(len(labels))]
    rest, *held_out = part_by_name(labels, by_name, list(drawn.values()), [folders["train"] / each for each in classes])

    def decode() -> Decoded:
        decoded = {part: _decode(of_part, size, in_channels) for part, of_part in files.items()}
        grey, total = sum(count for _, count in decoded.values()), sum(map(len, (f.labels for f in files.values())))
        mixed = f"{grey} of {total} images are grey and become RGB" if in_channels == 3 and 0 < grey < total else ""
        return Decoded({part: images for part, (images, _) in decoded.items()}, mixed)

    name = f"image_folder-{size[0]}x{size[1]}x{in_channels}"
    every = [of_part.root / of_part.name(row) for of_part in files.values() for row in range(len(of_part.labels))]
    decoded = decoded_once(name, every, list(files), decode, lambda decoded: None, Path(cache_dir))
    rows = {part: np.arange(len(of_part.labels)) for part, of_part in files.items()} | {"train": rest}
    splits = {part: gather([(decoded.parts[part], rows[part])]) for part in files}
    splits |= {part: gather([(decoded.parts["train"], held)]) for part, held in zip(drawn, held_out, strict=True)}
    by_hash = [f"{' and '.join(drawn)} drawn from {folders['train'].name} by a hash of file names"] if drawn else []
    return Splits(
        splits["train"],
        splits["val"],
        splits["test"],
        classes=classes,
        notes="; ".join([*by_hash, *filter(None, [decoded.notes]), *stray_note(strays)]),
        remarks=(*remarks, *repeated(**splits)),
    )


def _class_folders(folder: Path) -> tuple[tuple[str, ...], int]:
    """Return the names of the classes in a folder, and the number of stray files. Other files beside them are left out.
    Raises ValueError on images beside them and on names that are no UTF-8."""
    entries, strays = list_folder(folder)
    for entry in entries:
        size_of(entry)
        if not entry.is_dir() and entry.name.lower().endswith(SUFFIXES):
            raise ValueError(f"{entry.path} is in no class; put the images of each class into a folder of its own")
        if entry.is_dir() and as_utf8(entry.name) != entry.name:
            raise ValueError(f"{as_utf8(entry.path)}: the name of a class must be UTF-8; rename the folder")
    return tuple(entry.name for entry in entries if entry.is_dir()), strays


def _list_images(folder: Path, classes: Sequence[str]) -> tuple[FolderImages, int]:
    """Return the images of the classes that a folder has, and the number of stray files among them."""
    paths: list[bytes] = []
    sizes: list[int] = []
    labels: list[int] = []
    strays = 0
    for label, name in enumerate(classes):
        if not (folder / name).is_dir():
            continue
        entries, skipped = list_folder(folder / name)
        strays += skipped
        if not entries:
            raise ValueError(f"{folder / name} holds no images; put some there or remove the folder")
        for entry in entries:
            if entry.is_dir():
                raise ValueError(
                    f"{entry.path} is a folder: a class folder holds images alone; folders of classes may lie in train/, val/ "
                    "and test/, so written"
                )
            if not entry.name.lower().endswith(SUFFIXES):
                raise ValueError(
                    f"{entry.path} is no {', '.join(SUFFIXES)} file; a class folder holds images of these kinds alone"
                )
            sizes.append(size_of(entry))
            paths.append(os.fsencode(f"{name}/{entry.name}"))
            labels.append(label)
    return FolderImages(folder, np.array(paths), np.array(sizes), np.array(labels, dtype=np.int64)), strays


def _decode(files: FolderImages, size: tuple[int, int], channels: int) -> tuple[Part, int]:
    """Return all images and the number of those that are grey."""
    images = np.empty((len(files.labels), channels, *size), dtype=np.uint8)

    def decode(row: int) -> bool:
        image = StoredImage(files, row)
        images[row] = image.centre(channels, *size)
        return image.grey

    with ThreadPoolExecutor() as pool:
        grey = pool.map(decode, range(len(images)))
        count = sum(
            next(grey) for _ in preparation.counted(f"decoding images of {files.root.name}", range(len(images)))
        )
    return Part(images, files.labels), count
