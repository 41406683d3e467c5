"""Any folder of images/ and masks/, paired by name, or one of such folders: train/, val/ and test/."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datamodules.readers.image_files import (
    ByteScaling,
    check_channels,
    check_same_size,
    open_image,
    shown_pixels,
    shows_greys,
    stored_orientation,
)
from datamodules.readers.instances import InstanceSplit, components, object_mask, split_of_images
from datamodules.readers.listing import stray_note
from datamodules.readers.masks import COLOUR, class_mask, read_mask
from datamodules.readers.pairs import holds_images, image_mask_pairs
from datamodules.readers.parts import drawn_note, part_folders
from datamodules.readers.splits import Splits, check_counts, count_keys, hold_out, repeated


def load_image_mask_folder(
    path: str | Path,
    val_count: int,
    test_count: int,
    classes: Sequence[str] | int = ("background", "object"),
    instance_masks: bool = False,
    split_seed: int = 0,
    in_channels: int | None = None,
    mask_suffix: str | None = None,
) -> Splits:
    """Return the images uint8 [N, C, H, W], masks uint8 [N, H, W] and instances of train, val and test.

    path: with images/ and masks/, or with train/, val/ and test/ that have these; see part_folders. What is missing of val and
    test, val_count and test_count images, is drawn from the others by split_seed. mask_suffix: see image_mask_pairs. Images
    are grey of 8 or 16 bits, colour or palette, with or without alpha, masks grey, palette, RGB or RGBA. Images may differ in
    size; see Split. classes: names, or how many. instance_masks false: masks hold class indices, or 0 and 255 for two
    classes, and an instance is a 4-connected component of one class. true: every value or colour but 0, black or transparent
    is one object; there are two classes and touching objects are a gap apart in the masks. A mask may be all background.
    in_channels: 3, where grey images become RGB, or 1, where RGB must show nothing but greys; None: as the images are. 16-bit
    images are scaled by those to train on.
    Raises FileNotFoundError on missing or empty folders; ValueError on images without mask and the reverse, on damaged
    files, sizes that differ within a pair, colours where there is one channel, 8 and 16 bits side by side and values that are
    no classes, naming the file, on a split without objects, and on impossible counts.
    """
    if isinstance(classes, int):
        classes = ("background", "object") if classes == 2 else ("background", *map(str, range(1, classes)))
    if instance_masks and len(classes) != 2:
        raise ValueError(f"instance masks tell background and one kind of object, 2 classes, got {len(classes)}")
    folders, remarks = part_folders(Path(path), holds_images)
    found = {part: image_mask_pairs(folder, mask_suffix) for part, folder in folders.items()}
    pairs = [pair for of_part, _ in found.values() for pair in of_part]
    strays = sum(skipped for _, skipped in found.values())
    images, labels, turned = [], [], 0
    for image_path, mask_path in pairs:
        opened, noted = open_image(image_path)
        image, mask = shown_pixels(image_path, opened), read_mask(mask_path, black_and_white=len(classes) == 2)
        by_itself = noted in range(2, 9) and noted != stored_orientation(mask_path)
        name = f"{image_path}, turned as its camera noted (EXIF)," if by_itself else str(image_path)
        check_same_size(image, mask, name, str(mask_path))
        images.append(image)
        labels.append(mask)
        turned += by_itself
    if turned:
        remarks.append(
            f"{turned} of {len(pairs)} images were turned as their camera noted (EXIF): masks are taken to fit the turned ones"
        )
    names = [str(image_path) for image_path, _ in pairs]
    images, grey = _of_one_kind(images, names, in_channels)
    if instance_masks:
        instances, masks = labels, [object_mask(mask) for mask in labels]
    else:
        masks = _class_masks(labels, classes, [str(mask_path) for _, mask_path in pairs])
        instances = [components(mask) for mask in masks]
    objects = np.array([mask.any() for mask in masks]).astype(np.int64)
    ends = np.cumsum([len(of_part) for of_part, _ in found.values()])
    given = dict(zip(found, np.split(np.arange(len(images)), ends[:-1]), strict=True))
    counts = {part: count for part, count in (("val", val_count), ("test", test_count)) if part not in given}
    rows = given | _drawn(objects, given["train"], counts, split_seed)
    for part, name in (("train", "training"), ("val", "validation"), ("test", "test")):
        if not objects[rows[part]].any():
            more = f", or raise {count_keys(counts)}" if counts else ""
            raise ValueError(
                f"{path}: the masks of all {len(rows[part])} {name} images are empty, all background; annotate some "
                f"objects{more}"
            )
    scaling = ByteScaling.of(np.concatenate([images[row].ravel() for row in rows["train"]]))

    def split(part: str) -> InstanceSplit:
        return split_of_images(*([kind[row] for row in rows[part]] for kind in (scaled, masks, instances)))

    scaled = [scaling(image) for image in images]
    lossy = any(image_path.suffix.lower() in (".jpg", ".jpeg") for image_path, _ in pairs)
    empty = len(objects) - int(objects.sum())
    train, val, test = map(split, ("train", "val", "test"))
    return Splits(
        train=train,
        val=val,
        test=test,
        classes=tuple(classes),
        notes="; ".join(
            [
                *drawn_note(counts, split_seed),
                *scaling.notes(),
                *(["lossy JPEG"] * lossy),
                *([f"{grey} of {len(images)} images are grey and become RGB"] * bool(grey)),
                *([f"{empty} of {len(images)} masks are all background"] * bool(empty)),
                *stray_note(strays),
            ]
        ),
        remarks=(*remarks, *repeated(train, val, test)),
        grey_range=scaling.grey_range,
    )


def _drawn(objects: np.ndarray, rows: np.ndarray, counts: dict[str, int], seed: int) -> dict[str, np.ndarray]:
    """Return the rows by part: those of train, and so many of them for each other part; images without objects are spread.

    objects: of every row, 1 where its mask has some and 0 where it is empty. Raises ValueError on impossible counts.
    """
    check_counts(counts, len(rows), "images")
    parts = {}
    for part in reversed(counts):
        rest, held_out = hold_out(objects[rows], counts[part], seed)
        rows, parts[part] = rows[rest], rows[held_out]
    return {"train": rows, **parts}


def _of_one_kind(
    images: Sequence[np.ndarray], names: Sequence[str], in_channels: int | None
) -> tuple[list[np.ndarray], int]:
    """Return images [C, H, W] of as many channels and bits, and the number of grey ones that became RGB."""
    if in_channels is not None:
        check_channels(in_channels)
    if in_channels == 1:
        images = [image[..., 0] if image.ndim == 3 and shows_greys(image) else image for image in images]
    coloured = [image.ndim == 3 for image in images]
    if in_channels == 1 and any(coloured):
        raise ValueError(f"{names[coloured.index(True)]} is a colour image: data.in_channels=3 takes colours")
    for image, name in zip(images, names, strict=True):
        if image.dtype != images[0].dtype:
            raise ValueError(
                f"all images must have as many bits: {names[0]} is {images[0].dtype}, {name} is {image.dtype}; convert some"
            )
    if in_channels == 3 or any(coloured):
        rgb = [image if image.ndim == 3 else np.stack([image] * 3, axis=-1) for image in images]
        return [np.ascontiguousarray(image.transpose(2, 0, 1)) for image in rgb], coloured.count(False)
    return [image[None] for image in images], 0


def _class_masks(labels: Sequence[np.ndarray], classes: Sequence[str], names: Sequence[str]) -> list[np.ndarray]:
    try:
        return [class_mask(mask, classes, name) for mask, name in zip(labels, names, strict=True)]
    except ValueError as error:
        values = sorted(set().union(*(np.unique(mask).tolist() for mask in labels)))
        if values[-1] >= COLOUR:
            raise
        listed = f"{', '.join(map(str, values[:20]))}{', …' if len(values) > 20 else ''}"
        fits = f": data.num_classes={values[-1] + 1}" if values == list(range(len(values))) else ""
        raise ValueError(f"{error}; all masks together hold {listed}{fits}") from error
