"""Pictures by which a person judges a test: masks beside their truth, or images with their true and predicted class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from benchmarks.records.files import PICTURES

GAP = 4  # pixels between panels
# Okabe and Ito's palette: told apart by the colour-blind.
MISSED, INVENTED, WRONG_CLASS = (0, 114, 178), (230, 159, 0), (204, 121, 167)
SHEET_COLUMNS, TILE, CAPTION = 8, 64, 16  # of a sheet of classified images; the last two in pixels


def write_pictures(directory: Path, examples: Sequence[tuple[Tensor, ...]], classes: Sequence[str]) -> list[Path]:
    """Writes PNGs below ``directory`` and returns their paths.

    examples: (image, truth, prediction). Masks, each (H, W): one picture each. Classes, images (C, H, W) with scalars: one
    sheet of all. classes: their names.
    """
    folder = directory / PICTURES
    folder.mkdir(exist_ok=True)
    arrays = [tuple(part.numpy() for part in example) for example in examples]
    if arrays and arrays[0][1].ndim == 0:
        pictures = [sheet([(image, int(truth), int(prediction)) for image, truth, prediction in arrays], classes)]
    else:
        pictures = [panels(*example) for example in arrays]
    paths = [folder / f"test-{index}.png" for index in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    return paths


def sheet(examples: Sequence[tuple[np.ndarray, int, int]], classes: Sequence[str]) -> np.ndarray:
    """Images with the predicted class below, and the true one in orange where that is another; uint8 [H, W, 3]."""
    rows = -(-len(examples) // SHEET_COLUMNS)
    pitch = TILE + GAP
    canvas = Image.new("RGB", (SHEET_COLUMNS * pitch, rows * (pitch + CAPTION)), "white")
    draw = ImageDraw.Draw(canvas)
    for index, (image, truth, prediction) in enumerate(examples):
        left, top = index % SHEET_COLUMNS * pitch, index // SHEET_COLUMNS * (pitch + CAPTION)
        low, high = image.min(), image.max()
        pixels = (255 * (image - low) / max(high - low, 1e-12)).astype(np.uint8).transpose(1, 2, 0)
        tile = Image.fromarray(pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels)
        canvas.paste(tile.resize((TILE, TILE), Image.Resampling.NEAREST), (left, top))
        right = truth == prediction
        text = classes[prediction] if right else f"{classes[prediction]}, is {classes[truth]}"
        draw.text((left, top + TILE), text[:12], fill="black" if right else (180, 95, 0))
    return np.asarray(canvas)


def panels(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Image, truth, prediction and errors side by side, uint8 [H, 4 W + gaps, 3]. Classes are grey levels; in the last panel
    missed foreground is blue, invented foreground orange, one foreground class taken for another pink."""
    low, high = np.percentile(image, (0.5, 99.5))
    grey = (255 * np.clip((image - low) / max(high - low, 1e-12), 0, 1)).astype(np.uint8)
    scale = 255 // max(int(truth.max()), int(prediction.max()), 1)
    errors = np.repeat((grey // 2 + 64)[..., None], 3, axis=2)
    errors[(truth != prediction)] = WRONG_CLASS
    errors[(truth != 0) & (prediction == 0)] = MISSED
    errors[(truth == 0) & (prediction != 0)] = INVENTED
    flat = [
        np.repeat(part.astype(np.uint8)[..., None], 3, axis=2) for part in (grey, truth * scale, prediction * scale)
    ]
    gap = np.full((image.shape[0], GAP, 3), 255, dtype=np.uint8)
    return np.concatenate([flat[0], gap, flat[1], gap, flat[2], gap, errors], axis=1)
