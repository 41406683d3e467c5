"""Images and their masks in two folders, paired by name."""

import re
from collections.abc import Collection
from pathlib import Path

from datamodules.readers.image_files import SUFFIXES
from datamodules.readers.listing import contents, list_folder, size_of

# Names of the two folders; the second of nnU-Net, which ends an image's name with its channel, _0000.
_IMAGES, _MASKS = ("images", "imagesTr"), ("masks", "labelsTr")
_CHANNEL = re.compile(r"(.+)_(\d{4})")
_MASK_SUFFIX = "_mask"


def image_mask_pairs(path: Path, mask_suffix: str | None = None) -> tuple[list[tuple[Path, Path]], int]:
    """Return the files of images and masks in the order of the images' names, and the number of files that are neither.

    path: with images/ and masks/, or imagesTr/ and labelsTr/. mask_suffix: what follows an image's name in its mask's (x.png,
    x_seg.png: "_seg"); None: nothing or "_mask". A name ends before its last dot, or before ".ome.".
    Raises FileNotFoundError on missing and empty folders and on links that lead nowhere, and ValueError on an image without
    mask, the reverse, and two files of one name.
    """
    images, others = _by_stem(_folder(path, _IMAGES))
    masks, more = _by_stem(_folder(path, _MASKS))
    suffixes = ("", _MASK_SUFFIX) if mask_suffix is None else (mask_suffix,)
    pairs: list[tuple[Path, Path]] = []
    paired: set[str] = set()
    counts = f"({len(images)} images, {len(masks)} masks)"
    for stem, image in images.items():
        channel = _CHANNEL.fullmatch(stem)
        stems = [stem] if channel is None else [stem, channel[1]]
        names = [f"{one}{suffix}" for one in stems for suffix in suffixes]
        mask = next((name for name in names if name in masks), None)
        if mask is None:
            wanted = " or ".join(f"{name}.*" for name in names)
            raise ValueError(
                f"{image} has no mask; {_folder(path, _MASKS)} must hold a file {wanted} {counts}; data.mask_suffix says what "
                "else follows the name"
            )
        if mask in paired:
            raise ValueError(
                f"{image} is another channel of an image with the mask {masks[mask]}; one channel or RGB is read"
            )
        paired.add(mask)
        pairs.append((image, masks[mask]))
    if alone := sorted(masks.keys() - paired):
        raise ValueError(
            f"{masks[alone[0]]} has no image; {_folder(path, _IMAGES)} must hold a file of its name {counts}"
        )
    return pairs, others + more


def holds_images(path: Path) -> bool:
    """Whether a folder has images/ or imagesTr/."""
    return _folder(path, _IMAGES).is_dir()


def are_pairs(names: Collection[str]) -> bool:
    """Whether folders of these names hold images and their masks."""
    return any({image, mask} <= set(names) for image, mask in zip(_IMAGES, _MASKS, strict=True))


def _folder(path: Path, names: tuple[str, ...]) -> Path:
    return next((path / name for name in names if (path / name).is_dir()), path / names[0])


def _by_stem(folder: Path) -> tuple[dict[str, Path], int]:
    """Return the image files of a folder by name, in its order, and the number of its other files."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is missing, {contents(folder.parent)}; put images into images/ and their masks into masks/"
        )
    entries, others = list_folder(folder)
    files: dict[str, Path] = {}
    for entry in entries:
        path = Path(entry.path)
        if path.suffix.lower() not in SUFFIXES:
            others += 1
            continue
        size_of(entry)
        stem = path.stem.removesuffix(".ome")
        if stem in files:
            raise ValueError(f"{files[stem]} and {path} share a name before the dot, which pairs images and masks")
        files[stem] = path
    if not files:
        raise FileNotFoundError(f"{folder} holds no {', '.join(SUFFIXES)} file, {contents(folder)}")
    return files, others
