"""Makes docs/concepts/instances.png: the nuclei that a U-Net and a Mask R-CNN find in the same image, each in a colour.

python docs/instances.py UNET_RUN MASK_RCNN_RUN, two finished runs; see docs/concepts/detection.md.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.training.pictures import COLOURS, SHOWN, outline
from datamodules.readers import rle
from datamodules.readers.instances import components
from datamodules.sources.nuclei import load_nuclei

PICTURE = Path(__file__).parent / "concepts" / "instances.png"
SCALE, CAPTION = 4, 18  # pixels


def main(unet: str, mask_rcnn: str) -> None:
    """Write the picture."""
    test = load_nuclei().test
    pixels = test.images[0, 0].numpy()
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "nuclei.png")
        Image.fromarray(pixels).save(image)
        for run in (unet, mask_rcnn):
            command = ["-m", "benchmarks", "predict", run, str(image), f"--out={Path(folder, Path(run).parts[-4])}"]
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
        [mask] = Path(folder).glob("*/nuclei_mask.png")
        foreground = components((np.array(Image.open(mask)) != 0).astype(np.uint8))
        [results] = Path(folder).glob("*/results.json")
        detected = [one for one in json.loads(results.read_text()) if one["score"] >= SHOWN]
    texts = [one["segmentation"]["counts"] for one in detected]
    panels = {
        "annotation": masks_of(test.instances[0].numpy()),
        "U-Net, connected components of its mask": masks_of(foreground),
        f"Mask R-CNN, objects of a score from {SHOWN}": [
            rle.decode(rle.from_text(text), *pixels.shape) for text in texts
        ],
    }
    rows = [drawn(pixels, masks, f"{title}: {len(masks)}") for title, masks in panels.items()]
    Image.fromarray(np.concatenate(rows)).quantize(256).save(PICTURE, optimize=True)


def masks_of(numbered: np.ndarray) -> list[np.ndarray]:
    """Return the mask of each object of a map [H, W] of their numbers."""
    return [numbered == number for number in np.unique(numbered[numbered > 0])]


def drawn(pixels: np.ndarray, masks: Sequence[np.ndarray], title: str) -> np.ndarray:
    """Return the image, enlarged and brightened, with the outline of each object, below a title; uint8 [H, W, 3]."""
    bright = np.clip(255 * (pixels / np.percentile(pixels, 99.5)), 0, 255).astype(np.uint8)
    canvas = np.repeat(np.kron(bright, np.ones((SCALE, SCALE), np.uint8))[..., None], 3, axis=2)
    for number, mask in enumerate(masks):
        large = np.kron(mask, np.ones((SCALE, SCALE))) != 0
        colour = np.array(COLOURS[number % len(COLOURS)])
        canvas[large] = (0.6 * canvas[large] + 0.4 * colour).astype(np.uint8)
        canvas[outline(large)] = colour
    head = Image.new("RGB", (canvas.shape[1], CAPTION), "white")
    ImageDraw.Draw(head).text((2, 3), title, fill="black")
    return np.concatenate([np.asarray(head), canvas])


if __name__ == "__main__":
    main(*sys.argv[1:])
