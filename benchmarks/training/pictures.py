"""Pictures by which a person judges a test: masks and objects beside their truth, images with true and predicted class."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.records.files import PICTURES

if TYPE_CHECKING:  # `predict --help` needs no torch
    from torch import Tensor

GAP = 4  # pixels between panels
# Okabe and Ito's palette: told apart by the colour-blind.
MISSED, INVENTED, WRONG_CLASS = (0, 114, 178), (230, 159, 0), (204, 121, 167)
# The same without black and grey, one after another for the objects of an image.
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
SHOWN = 0.5  # least score of an object that is drawn
LEAST_SIDE = 512  # pixels of a drawing, so that its text can be read
SHEET_COLUMNS, TILE, CAPTION = 8, 64, 16  # of a sheet of classified images; the last two in pixels


def write_pictures(directory: Path, examples: Sequence[tuple[Any, ...]], classes: Sequence[str]) -> list[Path]:
    """Writes PNGs below ``directory`` and returns their paths.

    examples: (image, truth, prediction). Masks, each (H, W): one picture each. Objects, image (C, H, W) with what `drawing`
    takes: one picture each. Classes, images (C, H, W) with scalars: one sheet of all. classes: their names.
    """
    folder = directory / PICTURES
    folder.mkdir(exist_ok=True)
    arrays: list[Any] = [tuple(_as_arrays(part) for part in example) for example in examples]
    if arrays and isinstance(arrays[0][1], Mapping):
        pictures = [objects_beside_truth(image, truth, prediction, classes) for image, truth, prediction in arrays]
    elif arrays and arrays[0][1].ndim == 0:
        pictures = [sheet([(image, int(truth), int(prediction)) for image, truth, prediction in arrays], classes)]
    else:
        pictures = [panels(*example) for example in arrays]
    paths = [folder / f"test-{index}.png" for index in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    return paths


def _as_arrays(part: "Tensor | Mapping[str, Tensor]") -> Any:
    if isinstance(part, Mapping):
        return {name: _as_arrays(value) for name, value in part.items()}
    return (part.float() if part.is_floating_point() else part).numpy()  # NumPy has no bfloat16


def sheet(examples: Sequence[tuple[np.ndarray, int, int]], classes: Sequence[str]) -> np.ndarray:
    """Images with the predicted class below, and the true one in orange where that is another; uint8 [H, W, 3]."""
    rows = -(-len(examples) // SHEET_COLUMNS)
    pitch = TILE + GAP
    canvas = Image.new("RGB", (SHEET_COLUMNS * pitch, rows * (pitch + CAPTION)), "white")
    draw = ImageDraw.Draw(canvas)
    for index, (image, truth, prediction) in enumerate(examples):
        left, top = index % SHEET_COLUMNS * pitch, index // SHEET_COLUMNS * (pitch + CAPTION)
        tile = Image.fromarray(_pixels(image, image.min(), image.max()))
        canvas.paste(tile.resize((TILE, TILE), Image.Resampling.NEAREST), (left, top))
        right = truth == prediction
        text = classes[prediction] if right else f"{classes[prediction]}, is {classes[truth]}"
        draw.text((left, top + TILE), text[:12], fill="black" if right else (180, 95, 0))
    return np.asarray(canvas)


def _pixels(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return an image (C, H, W) as uint8 [H, W, 3], black at ``low`` and white at ``high``; grey but of three channels."""
    if len(image) != 3:
        image = image.mean(axis=0, keepdims=True)
    scaled = (255 * np.clip((image - low) / max(high - low, 1e-12), 0, 1)).astype(np.uint8)
    return np.broadcast_to(scaled, (3, *scaled.shape[1:])).transpose(1, 2, 0)


def objects_beside_truth(
    image: np.ndarray, truth: Mapping[str, np.ndarray], prediction: Mapping[str, np.ndarray], classes: Sequence[str]
) -> np.ndarray:
    """Return the true objects and the detected ones, each drawn on the image (C, H, W), side by side, uint8."""
    pixels = _pixels(image, *np.percentile(image, (0.5, 99.5)))
    return _side_by_side(*(np.asarray(drawing(pixels, objects, classes)) for objects in (truth, prediction)))


def panels(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Image, truth, prediction and errors side by side, uint8 [H, 4 W + gaps, 3]. Classes are grey levels; in the last panel
    missed foreground is blue, invented foreground orange, one foreground class taken for another pink."""
    grey = _pixels(image[None], *np.percentile(image, (0.5, 99.5)))
    scale = 255 // max(int(truth.max()), int(prediction.max()), 1)
    errors = grey // 2 + 64
    errors[(truth != prediction)] = WRONG_CLASS
    errors[(truth != 0) & (prediction == 0)] = MISSED
    errors[(truth == 0) & (prediction != 0)] = INVENTED
    levels = [np.repeat((part * scale).astype(np.uint8)[..., None], 3, axis=2) for part in (truth, prediction)]
    return _side_by_side(grey, *levels, errors)


def _side_by_side(*parts: np.ndarray) -> np.ndarray:
    padded = [np.pad(part, ((0, 0), (0, GAP), (0, 0)), constant_values=255) for part in parts]
    return np.concatenate(padded, axis=1)[:, :-GAP]


def drawing(pixels: np.ndarray, objects: Mapping[str, np.ndarray], classes: Sequence[str]) -> Image.Image:
    """Return the image, enlarged by a whole number to 512 pixels or more, with box, class, score and outline of each object.

    pixels: uint8 [H, W] or [H, W, 3]. objects: boxes [n, 4], labels [n], and where there are scores [n] and masks [n, H, W].
    """
    scale = -(-LEAST_SIDE // max(pixels.shape[:2]))
    canvas = np.repeat(np.repeat(np.array(Image.fromarray(pixels).convert("RGB")), scale, 0), scale, 1)
    scores = objects.get("scores")
    shown = [place for place in range(len(objects["boxes"])) if scores is None or scores[place] >= SHOWN]
    for number, place in enumerate(shown):
        if "masks" in objects:
            mask = np.repeat(np.repeat(objects["masks"][place] != 0, scale, 0), scale, 1)
            canvas[mask] = (0.75 * canvas[mask] + 0.25 * np.array(COLOURS[number % len(COLOURS)])).astype(np.uint8)
            canvas[outline(mask)] = COLOURS[number % len(COLOURS)]
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for number, place in enumerate(shown):
        colour = COLOURS[number % len(COLOURS)]
        x0, y0, x1, y1 = (scale * objects["boxes"][place]).tolist()
        draw.rectangle((x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)), outline=colour)
        text = classes[int(objects["labels"][place])] + ("" if scores is None else f" {scores[place]:.2f}")
        draw.text((x0 + 2, max(y0 - 11, 0)), text, fill=colour)
    return image


def outline(mask: np.ndarray) -> np.ndarray:
    """Return the pixels of a mask, bool [H, W], with a neighbour that is none of it, or at the image's edge."""
    inside = np.pad(mask, 1)
    return mask & ~(inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:])
