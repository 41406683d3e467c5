"""The objects that a detector finds in images: one file of COCO's results, and each image with what was found drawn on it."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from rich.progress import Progress

from benchmarks.records.files import write_atomic

RESULTS = "results.json"
SHOWN = 0.5  # least score of an object that is drawn
LEAST_SIDE = 512  # pixels of a drawing, so that its text can be read
# Okabe and Ito's palette without black: told apart by the colour-blind.
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))


def write_objects(
    module: Any,
    datamodule: Any,
    targets: Mapping[Path, Path],
    channels: int,
    dataset: Mapping[str, Any],
    path: Path,
    bars: Progress,
) -> None:
    """Write a drawing of each image, targets[image], and at last the results of all into ``path``.

    An image's id is its name's number, as in COCO's files, or else the name before the dot. dataset: that of the record.
    """
    results: list[dict[str, Any]] = []
    classes = dataset["classes"]
    category_ids = dataset.get("category_ids") or list(range(1, len(classes) + 1))
    whole = bars.add_task("images", total=len(targets))
    for image, target in targets.items():
        batch, pixels, remark = datamodule.read(image, channels)
        if remark:
            print(remark, file=sys.stderr)
        on_device = [{name: value.to(module.device) for name, value in one.items()} for one in batch.targets]
        [prediction] = module.detect(batch.images.to(module.device), on_device)
        prediction = {name: value.cpu() for name, value in prediction.items()}
        number = int(image.stem) if image.stem.isdecimal() else image.stem
        results += datamodule.results(prediction, number, category_ids)
        drawing(pixels, {name: value.numpy() for name, value in prediction.items()}, classes).save(target)
        bars.advance(whole)
        print(target)
    write_atomic(path, json.dumps(results) + "\n")
    print(path)


def drawing(pixels: np.ndarray, prediction: Mapping[str, np.ndarray], classes: Sequence[str]) -> Image.Image:
    """Return the image, enlarged by a whole number to 512 pixels or more, with box, class, score and outline of each object.

    pixels: uint8 [H, W] or [H, W, 3]. prediction: boxes [n, 4], labels and scores [n], and masks [n, H, W] where there are.
    """
    scale = -(-LEAST_SIDE // max(pixels.shape[:2]))
    canvas = np.repeat(np.repeat(np.array(Image.fromarray(pixels).convert("RGB")), scale, 0), scale, 1)
    shown = [place for place in range(len(prediction["scores"])) if prediction["scores"][place] >= SHOWN]
    for number, place in enumerate(shown):
        if "masks" in prediction:
            mask = np.repeat(np.repeat(prediction["masks"][place] != 0, scale, 0), scale, 1)
            canvas[mask] = (0.75 * canvas[mask] + 0.25 * np.array(COLOURS[number % len(COLOURS)])).astype(np.uint8)
            canvas[outline(mask)] = COLOURS[number % len(COLOURS)]
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for number, place in enumerate(shown):
        colour = COLOURS[number % len(COLOURS)]
        x0, y0, x1, y1 = (scale * prediction["boxes"][place]).tolist()
        draw.rectangle((x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)), outline=colour)
        text = f"{classes[int(prediction['labels'][place])]} {prediction['scores'][place]:.2f}"
        draw.text((x0 + 2, max(y0 - 11, 0)), text, fill=colour)
    return image


def outline(mask: np.ndarray) -> np.ndarray:
    """Return the pixels of a mask, bool [H, W], with a neighbour that is none of it, or at the image's edge."""
    inside = np.pad(mask, 1)
    return mask & ~(inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:])
