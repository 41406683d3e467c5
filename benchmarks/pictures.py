"""Pictures by which a person judges a segmentation: image, truth, prediction, and where the two differ."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

FOLDER = "pictures"
GAP = 4  # pixels between panels
# Okabe and Ito's palette: told apart by the colour-blind.
MISSED, INVENTED, WRONG_CLASS = (0, 114, 178), (230, 159, 0), (204, 121, 167)


def write_pictures(directory: Path, examples: Sequence[tuple[Tensor, Tensor, Tensor]]) -> list[Path]:
    """Writes one PNG per (image, truth, prediction), each (H, W), below ``directory``; returns their paths."""
    folder = directory / FOLDER
    folder.mkdir(exist_ok=True)
    paths = []
    for index, example in enumerate(examples):
        path = folder / f"test-{index}.png"
        Image.fromarray(panels(*(part.numpy() for part in example))).save(path)
        paths.append(path)
    return paths


def panels(image: np.ndarray, truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Image, truth, prediction and errors side by side, uint8 [H, 4 W + gaps, 3]. Classes are grey levels; in the last panel
    missed foreground is blue, invented foreground orange, one foreground class taken for another pink."""
    low, high = np.percentile(image, (0.5, 99.5))
    grey = (255 * np.clip((image - low) / max(high - low, 1e-12), 0, 1)).astype(np.uint8)
    scale = 255 // max(int(truth.max()), int(found.max()), 1)
    errors = np.repeat((grey // 2 + 64)[..., None], 3, axis=2)
    errors[(truth != found)] = WRONG_CLASS
    errors[(truth != 0) & (found == 0)] = MISSED
    errors[(truth == 0) & (found != 0)] = INVENTED
    flat = [np.repeat(part.astype(np.uint8)[..., None], 3, axis=2) for part in (grey, truth * scale, found * scale)]
    gap = np.full((image.shape[0], GAP, 3), 255, dtype=np.uint8)
    return np.concatenate([flat[0], gap, flat[1], gap, flat[2], gap, errors], axis=1)
