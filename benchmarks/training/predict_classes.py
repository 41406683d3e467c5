"""Classes of images: ``python -m benchmarks predict RUN IMAGE…`` for a run of classification."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.units import csv_text

CLASSES = "classes.csv"


def write_classes(
    module: Any,
    datamodule: Any,
    images: Sequence[Path],
    shape: Sequence[int],
    names: Sequence[str],
    path: Path,
    bars: Progress,
) -> None:
    """Print each image's most probable class; write the probabilities of all classes to ``path``, a row for each image.

    The network takes images of ``shape`` [C, H, W]; ``names`` are those of the classes.
    """
    import torch

    rows: list[list[str]] = []
    task = bars.add_task("images", total=len(images))
    for image in images:
        pixels = datamodule.read_view(image, shape)
        with torch.no_grad():
            probabilities = module(pixels[None].to(module.device)).softmax(dim=1)[0].tolist()
        best = max(range(len(names)), key=probabilities.__getitem__)
        rows.append([str(image), names[best], *(f"{value:.6f}" for value in probabilities)])
        bars.advance(task)
        print(f"{image}: {names[best]} ({100 * probabilities[best]:.1f} %)")
    path.write_text(csv_text([["image", "class", *names], *rows]), encoding="utf-8", newline="")
    print(path)
