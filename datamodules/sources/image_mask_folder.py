"""Any folder of images/ and masks/, paired by the name before the dot."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from datamodules.readers.image_files import (
    ByteScaling,
    check_same_size,
    read_image,
    stack_images,
)
from datamodules.readers.instances import InstanceSplit, components, split_of_instances
from datamodules.readers.masks import check_not_empty, class_mask, read_mask
from datamodules.readers.splits import Splits, hold_out

SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif", ".jpg", ".jpeg")


def _by_stem(folder: Path) -> dict[str, Path]:
    """Return the image files of a folder by the name before the dot, in its order."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing; put images into images/ and their masks into masks/")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in files:
            raise ValueError(f"{files[path.stem]} and {path} share a name before the dot, which pairs images and masks")
        files[path.stem] = path
    if not files:
        raise FileNotFoundError(f"{folder} holds no {', '.join(SUFFIXES)} file")
    return files


def _pairs(path: Path) -> list[tuple[Path, Path]]:
    images, masks = _by_stem(path / "images"), _by_stem(path / "masks")
    for here, there, kind in ((images, path / "masks", "mask"), (masks, path / "images", "image")):
        others = masks if kind == "mask" else images
        alone = sorted(here.keys() - others.keys())
        if alone:
            raise ValueError(
                f"{here[alone[0]]} has no {kind}; {there} must hold a file {alone[0]}.* "
                f"({len(images)} images, {len(masks)} masks)"
            )
    return [(image, masks[stem]) for stem, image in images.items()]


def load_image_mask_folder(
    path: str | Path,
    val_count: int,
    test_count: int,
    classes: Sequence[str] = ("background", "object"),
    instance_masks: bool = False,
    split_seed: int = 0,
) -> Splits:
    """Return the images uint8 [N, C, H, W], masks uint8 [N, H, W] and instances, drawn into train, val and test by split_seed.

    path: a folder with images/ (grey of 8 or 16 bits, colour, palette, with or without alpha) and masks/ (grey, palette,
    RGB or RGBA). All images are of one size and kind. instance_masks false: masks hold class indices, or 0 and 255 for
    two classes, and an instance is a 4-connected component of one class. true: every value or colour but 0, black or
    transparent is one object; there are two classes and touching objects are a gap apart in the masks.
    16-bit images are scaled by those to train on.
    Raises FileNotFoundError on missing or empty folders; ValueError on images without mask and the reverse, on damaged
    files, sizes that differ, values that are no classes and empty masks, naming the file, and on impossible counts.
    """
    if instance_masks and len(classes) != 2:
        raise ValueError(f"instance masks tell background and one kind of object, 2 classes, got {len(classes)}")
    images, masks, names = [], [], []
    lossy = False
    for image_path, mask_path in _pairs(Path(path)):
        image, mask = read_image(image_path), read_mask(mask_path, black_and_white=len(classes) == 2)
        check_same_size(image, mask, str(image_path), str(mask_path))
        check_not_empty(mask, str(mask_path))
        if not instance_masks:
            mask = class_mask(mask, classes, str(mask_path))
        images.append(image)
        masks.append(mask)
        names.append(str(image_path))
        lossy = lossy or image_path.suffix.lower() in (".jpg", ".jpeg")
    pixels, labels = stack_images(images, names), np.stack(masks)
    if min(val_count, test_count) < 1 or val_count + test_count >= len(pixels):
        raise ValueError(
            f"val_count and test_count must be positive and leave some of the {len(pixels)} images to train on, "
            f"got {val_count} and {test_count}"
        )
    rest, test = hold_out(np.zeros(len(pixels), dtype=np.int64), test_count, split_seed)
    train, val = (rest[rows] for rows in hold_out(np.zeros(len(rest), dtype=np.int64), val_count, split_seed))
    scaling = ByteScaling.of(pixels[train])
    scaled = scaling(pixels)

    def split(rows: np.ndarray) -> InstanceSplit:
        if instance_masks:
            return split_of_instances(scaled[rows], labels[rows])
        instances = np.stack([components(mask) for mask in labels[rows]])
        return InstanceSplit(*(torch.from_numpy(array) for array in (scaled[rows], labels[rows], instances)))

    return Splits(
        train=split(train),
        val=split(val),
        test=split(test),
        classes=tuple(classes),
        notes="; ".join([f"split drawn with seed {split_seed}", *scaling.notes(), *(["lossy JPEG"] * lossy)]),
        grey_range=scaling.grey_range,
    )
