"""A generated tree of JPEG files in ImageNet's layout, of its sizes: noise with photographs' spectrum."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.records.files import read_json, write_json
from benchmarks.terminal import with_bar

# ILSVRC 2012's training images are mostly 500x375, of 110 KB on average.
SHAPES = {(500, 375): 0.55, (500, 333): 0.15, (375, 500): 0.2, (333, 500): 0.05, (640, 480): 0.05}
QUALITIES = (90, 96)
CLASSES, TESTED = 10, 0.05  # test images, of the training images' number
SCENES, SCENE = 48, 1024  # pictures that the photographs are cut out of, and their side
SLOPES, CONTRAST, GRAINS, CHROMA = (1.0, 1.35), 50, (0, 8), 12  # grey levels but for the slopes
MARK = "generated.json"


def generate(root: Path, images: int) -> dict[str, Any]:
    """Write a tree of ``images`` training images and a few test images, unless it is there already.

    Returns:
        What was made: numbers, mean size of a file in bytes, mean width and height.

    Raises:
        ValueError: root holds something else.
    """
    content: dict[str, Any] = {"images": images, "version": 1}
    contents = read_json(root / MARK)
    if contents is not None and content.items() <= contents.items():
        return contents
    if contents is not None or (root.is_dir() and set(os.listdir(root)) - {"train", "val"}):
        what = f"a tree of {contents['images']} images" if contents else "something else"
        raise ValueError(f"{root} holds {what}; name another folder by --tree")
    parts = ["train"] * images + ["val"] * max(CLASSES, round(TESTED * images))
    for part in ("train", "val"):
        for label in range(CLASSES):
            (root / part / wnid(label)).mkdir(parents=True, exist_ok=True)
    sizes, shapes = [], []
    numbers = [number for start in range(SCENES) for number in range(start, len(parts), SCENES)]
    for number in with_bar(numbers, f"generating {len(parts)} JPEGs"):
        if number < SCENES:
            random = np.random.default_rng(number)
            picture = scene(random)
        shape, data = photograph(picture, random)
        folder = wnid(number % CLASSES)
        (root / parts[number] / folder / f"{folder}_{number}.JPEG").write_bytes(data)
        sizes.append(len(data))
        shapes.append(shape)
    width, height = np.mean(shapes, axis=0).tolist()
    contents = content | {"files": len(parts), "mean_bytes": float(np.mean(sizes)), "width": width, "height": height}
    write_json(root / MARK, contents)
    return contents


def wnid(label: int) -> str:
    """Return the name of a class's folder."""
    return f"n{label + 1:08d}"


def scene(random: np.random.Generator) -> Image.Image:
    """Return a picture whose amplitudes fall with frequency as photographs' do (Field 1987), with grain."""
    frequency = np.hypot(np.fft.fftfreq(SCENE)[:, None], np.fft.rfftfreq(SCENE))
    frequency[0, 0] = np.inf
    slope = random.uniform(*SLOPES)

    def noise() -> np.ndarray:
        white = np.fft.rfft2(random.standard_normal((SCENE, SCENE)))
        field = np.fft.irfft2(white / frequency**slope, s=(SCENE, SCENE))
        return field / field.std()

    grain = random.uniform(*GRAINS) * random.standard_normal((SCENE, SCENE))
    planes = [128 + CONTRAST * noise() + grain, 128 + CHROMA * noise(), 128 + CHROMA * noise()]
    return Image.fromarray(np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8), "YCbCr").convert("RGB")


def photograph(picture: Image.Image, random: np.random.Generator) -> tuple[tuple[int, int], bytes]:
    """Return a part of a scene, mirrored or not: width and height, and the JPEG, 4:2:0."""
    width, height = list(SHAPES)[random.choice(len(SHAPES), p=list(SHAPES.values()))]
    left, top = int(random.integers(SCENE - width)), int(random.integers(SCENE - height))
    part = picture.crop((left, top, left + width, top + height))
    if random.random() < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    out = io.BytesIO()
    part.save(out, "JPEG", quality=int(random.integers(QUALITIES[0], QUALITIES[1] + 1)), subsampling="4:2:0")
    return (width, height), out.getvalue()
