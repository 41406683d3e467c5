"""An image file of any kind as a trained network takes it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules.readers.image_files import ByteScaling, read_image, shows_greys


def read_slices(
    path: Path, channels: int, grey_range: Sequence[int] | None, to_grey: bool = False
) -> tuple[Tensor, str]:
    """Return the slices of an image file for a network of so many channels, [N, C, H, W], grey values 0..255, uint8 or float32,
    as a viewer shows and turns them; and what is to be said of it, "" normally.

    A TIFF may hold several. grey_range: the 16-bit grey values that became 0 and 255 in training, None for images of 8
    bits; a file of 16 bits is then scaled by its own percentiles 0.1 and 99.9. to_grey: a colour image becomes grey for a
    network of one channel; else only one that shows nothing but greys.
    Raises ValueError or FileNotFoundError naming the file.
    """
    from datamodules.readers.tiff_stacks import page_count, read_stack  # with tifffile

    several = path.suffix.lower() in {".tif", ".tiff"} and page_count(path) != 1
    slices = _of_grey_values(path, read_stack(path)) if several else read_image(path)[None]
    remark = ""
    if grey_range is not None and slices.dtype == np.uint16:
        scaling = ByteScaling(grey_range[0], grey_range[1], 16)
    else:
        scaling = ByteScaling.of(slices, str(path))
    if grey_range is not None and scaling.bits == 8:
        remark = f"{path} has 8 bits per pixel and the training images had 16: its grey values are taken as they are"
    elif grey_range is None and scaling.bits == 16:
        remark = (
            f"{path} has 16 bits per pixel and the run has no range of grey values from training: "
            f"its own {scaling.low}..{scaling.high} are scaled to 0..255"
        )
    pixels = torch.tensor(scaling(slices))
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    if channels == 3 and pixels.shape[1] == 1:  # as grey among colour in training
        pixels = pixels.expand(-1, 3, -1, -1)
    if channels == 1 and pixels.shape[1] == 3:
        if shows_greys(slices):
            pixels = pixels[:, :1]
        elif to_grey:
            pixels = (
                pixels.float().mul(torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
            )  # BT.601
        else:
            raise ValueError(f"{path} is a colour image: data.in_channels=3 takes colours")
    if pixels.shape[1] != channels:
        raise ValueError(f"{path} has {pixels.shape[1]} channels, the network takes {channels}")
    return pixels, remark


def _of_grey_values(path: Path, stack: np.ndarray) -> np.ndarray:
    """Return slices as uint8 or uint16, as read_image does a single one."""
    if stack.dtype == bool:
        return stack * np.uint8(255)
    if stack.dtype.kind not in "ui" or stack.min() < 0 or stack.max() >= 1 << 16:
        raise ValueError(
            f"{path} must have grey values of 8 or 16 bits, got {stack.dtype} from {stack.min()} to {stack.max()}"
        )
    return stack if stack.dtype == np.uint8 else stack.astype(np.uint16)
