"""A training set of the Cell Tracking Challenge (Ulman et al., Nature Methods 14, 2017; celltrackingchallenge.net), such
as PhC-C2DH-U373 and DIC-C2DH-HeLa: 01/t*.tif, 01_GT/SEG/man_seg*.tif, and the same for 02.

Sequence 01 trains and 02 tests; the labels of the challenge's own test sequences are not public.
"""

import re
from pathlib import Path

import numpy as np

from datamodules.readers.image_files import ByteScaling, check_same_size, read_image, stack_images
from datamodules.readers.instances import split_of_instances
from datamodules.readers.listing import contents
from datamodules.readers.masks import check_not_empty, read_mask
from datamodules.readers.splits import Splits, check_counts
from datamodules.readers.tiff_stacks import page_count

# The mask of one slice of a three-dimensional frame.
_SLICE = re.compile(r"man_seg_\d+_\d+\.tif")


def _read_sequence(folder: Path, sequence: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the annotated frames of a sequence in the order of time: images [N, C, H, W], instances int32 [N, H, W]."""
    frames, masks = folder / sequence, folder / f"{sequence}_GT" / "SEG"
    for needed in (frames, masks):
        if not needed.is_dir():
            raise FileNotFoundError(
                f"{needed} is missing; unpack a training set of the Cell Tracking Challenge to {folder} (01, 01_GT, ...)"
            )
    mask_paths = sorted(masks.glob("man_seg*.tif"))
    if not mask_paths:
        raise FileNotFoundError(
            f"{masks} holds no man_seg*.tif, {contents(masks)}; unpack a training set, which has them"
        )
    first_frame = min(frames.glob("t*.tif"), default=mask_paths[0])
    if page_count(first_frame) > 1 or any(_SLICE.fullmatch(mask.name) for mask in mask_paths):
        raise ValueError(
            f"{folder} is a three-dimensional data set: frames are stacks, or masks man_seg_TTT_ZZZ.tif; two-dimensional ones "
            "are read, such as PhC-C2DH-U373 and DIC-C2DH-HeLa"
        )
    images, instances, names = [], [], []
    for mask_path in mask_paths:
        frame_path = frames / f"t{mask_path.stem.removeprefix('man_seg')}.tif"
        if not frame_path.is_file():
            raise FileNotFoundError(f"{frame_path} is missing, the frame of {mask_path}; unpack the training set again")
        image, mask = read_image(frame_path), read_mask(mask_path)
        check_same_size(image, mask, str(frame_path), str(mask_path))
        check_not_empty(mask, str(mask_path))
        images.append(image)
        instances.append(mask)
        names.append(str(frame_path))
    return stack_images(images, names), np.stack(instances)


def load_cell_tracking(path: str | Path, val_count: int = 2) -> Splits:
    """Return the annotated frames: images uint8 [N, C, H, W], masks uint8 [N, H, W] of background (0) and cell (1), instances.

    path: the folder of one data set. train: sequence 01 without its last val_count annotated frames, which are val: the
    end, because neighbours in time resemble one another. test: sequence 02. Touching cells are a gap apart in the masks,
    not in the instances, whose labels are the challenge's. 16-bit frames are scaled by those to train on.
    Raises FileNotFoundError on missing folders and files; ValueError on damaged, empty or three-dimensional ones, on
    sizes that differ, naming the file, and if val_count leaves nothing to train on.
    """
    images, instances = _read_sequence(Path(path), "01")
    test_images, test_instances = _read_sequence(Path(path), "02")
    check_counts({"val": val_count}, len(images), f"annotated frames of {path}/01")
    if test_images.dtype != images.dtype:
        raise ValueError(
            f"{path}: 01 and 02 must have equal bits per pixel, got {images.dtype} and {test_images.dtype}"
        )
    cut = len(images) - val_count
    scaling = ByteScaling.of(images[:cut])
    return Splits(
        train=split_of_instances(scaling(images[:cut]), instances[:cut]),
        val=split_of_instances(scaling(images[cut:]), instances[cut:]),
        test=split_of_instances(scaling(test_images), test_instances),
        classes=("background", "cell"),
        notes="; ".join(["sequence 01 trains, 02 tests", *scaling.notes()]),
        grey_range=scaling.grey_range,
    )
