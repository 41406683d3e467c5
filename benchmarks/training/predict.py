"""Masks, classes or objects of images from a finished run: ``python -m benchmarks predict RUN IMAGE…``."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from benchmarks.config.trusted import TRUST_HELP, check_targets
from benchmarks.records.files import CONFIG, RECORD, checkpoint_of, read_config, read_json, write_atomic
from benchmarks.records.hardware import linux_says
from benchmarks.terminal import at_least, can_redraw
from benchmarks.training.pictures import SHOWN, drawing
from benchmarks.units import csv_text, one_line

CLASSES, RESULTS = "classes.csv", "results.json"
# The file of what was found in all images together, by task; masks are a file for each image.
TOGETHER = {"classification": CLASSES, "detection": RESULTS}
TIFF = {".tif", ".tiff"}
NEEDED = {
    **{"data": dict, "module": dict, "datamodule": dict},
    **{"data.task": str, "data.num_classes": int, "data.in_channels": int, "data.image_size": list},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``predict``."""
    parser.description = (
        "Masks, classes or objects of any images, from a finished run of segmentation, classification or detection."
    )
    parser.epilog = (
        "Where the run tested its images whole, one of their size is predicted whole, too. Others are cut into overlapping "
        "tiles with mirrored borders, so the network needs the memory of a tile; the image and the scores of its classes are "
        "held whole. A mask is written as <name>_mask.png, of a TIFF with all its slices as "
        "<name>_mask.tif: class k of K as grey level 255 k / (K - 1). A run of classification "
        f"prints the class of each image and writes {CLASSES} with the probabilities of all classes. One of detection writes "
        f"{RESULTS}, in COCO's format with boxes and run-length masks, and draws the objects of a score from {SHOWN} on into "
        "<name>_objects.png. An image that cannot be read, or that the network does not take, is left out and named at "
        "the end; where a file is missing, nothing is written."
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of the run, as in outputs/nuclei/…/seed0")
    parser.add_argument(
        "images",
        metavar="IMAGE",
        type=Path,
        nargs="+",
        help="PNG, JPEG, TIFF and others; for masks also a TIFF of several slices",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="where files go (default: RUN/predictions)")
    parser.add_argument("--tile", metavar="PIXELS", type=at_least(1), help="side of a tile (default: the run's own)")
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last", help="which weights (default: last)")
    parser.add_argument("--trust", metavar="NAME", action="append", default=[], help=TRUST_HELP)


def run(arguments: argparse.Namespace) -> None:
    """Write a mask for each image, or the classes or objects of all. Raises ValueError or OSError where there is no such run or
    image, for a tile that memory does not hold, and a file that would be overwritten; at the end for images that could not be
    read."""
    run, images, tile = arguments.run, arguments.images, arguments.tile
    out = arguments.out or run / "predictions"
    weights = checkpoint_of(run, arguments.checkpoint)
    config = read_config(run, NEEDED)
    for part in ("module", "datamodule"):
        check_targets(config[part], run / CONFIG, arguments.trust)
    task = config["data"]["task"]
    if task not in ("segmentation", *TOGETHER):
        raise ValueError(f"{run} is a run of {task}: predict knows segmentation, {' and '.join(TOGETHER)}")
    if task != "segmentation" and tile is not None:
        raise ValueError(f"--tile is of segmentation: {task} takes an image as a whole")
    for image in images:
        if image.is_dir():
            raise ValueError(f"{image} is a folder: IMAGE is a file, as {image / '*.png'} names all of a folder")
        if not image.is_file():
            raise FileNotFoundError(f"{image} is missing")
    together = out / TOGETHER.get(task, "")
    if together.is_file():
        raise ValueError(f"{together} would be overwritten: choose another --out or move it away")
    targets = {} if task == "classification" else _files(images, out, task)

    import torch
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    from benchmarks.config.hydra_errors import unwrapped
    from benchmarks.training.weights import checkpoint_weights

    dataset = (read_json(run / RECORD) or {}).get("dataset")
    needed = ("mean", "std") if task == "segmentation" else ("mean", "std", "classes")
    if not isinstance(dataset, dict) or not all(isinstance(dataset.get(key), list) for key in needed):
        keys = ", ".join(f"dataset.{key}" for key in needed)
        raise ValueError(f"{run / RECORD} does not say how images were standardised, or what classes they have: {keys}")
    try:
        module = instantiate(config["module"])
        datamodule = instantiate(config["datamodule"], mean=dataset["mean"], std=dataset["std"])
    except InstantiationException as error:
        raise ValueError(f"{run / CONFIG} cannot be built: {unwrapped(error)}") from error
    module.load_state_dict(checkpoint_weights(weights, module)[0])
    module.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    if tile is not None:
        check_memory(module.net, config["data"]["in_channels"], config["data"]["image_size"][0], tile)
        try:
            module.use_tiles(tile)
        except ValueError as error:
            raise ValueError(f"--tile {tile}: {error}") from error
    data = config["data"]
    out.mkdir(parents=True, exist_ok=True)
    unread: list[str] = []

    def reading(read: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that returns None of an image that cannot be read or predicted: the others shall have their
        results."""

        def attempt(image: Path, *arguments: Any) -> Any:
            try:
                return read(image, *arguments)
            except (ValueError, OSError, ImportError) as error:  # the latter of what a compressed file needs
                unread.append(str(error))
                return None

        return attempt

    console = Console()
    with Progress(console=console, transient=True, disable=not can_redraw(console)) as bars:
        if task == "segmentation":
            predict = reading(partial(_mask, module, (dataset.get("image_shape") or ())[1:]))
            _write_masks(reading(datamodule.read_slices), predict, targets, data, dataset.get("grey_range"), bars)
        elif task == "detection":
            detect = reading(partial(_objects, module))
            _write_objects(datamodule, reading(datamodule.read), detect, targets, data, dataset, together, bars)
        else:
            _write_classes(module, reading(datamodule.read_view), images, data, dataset["classes"], together, bars)
    if unread:
        raise ValueError("; ".join(unread))


def _files(images: Sequence[Path], out: Path, task: str) -> dict[Path, Path]:
    """The file of each image's masks or drawing."""

    def suffix(image: Path) -> str:
        return "_objects.png" if task == "detection" else f"_mask{'.tif' if image.suffix.lower() in TIFF else '.png'}"

    targets = {image: out / f"{image.stem}{suffix(image)}" for image in images}
    taken: dict[str, Path] = {}
    for image, target in targets.items():
        for given in [str(target), *([f"image_id {_image_id(image)}"] if task == "detection" else [])]:
            other = taken.setdefault(given, image)
            if other != image:
                raise ValueError(f"{other} and {image} would both give {given}: predict each with an --out of its own")
        if target.exists():
            raise ValueError(
                f"{target}, what {image} gives, would be overwritten: choose another --out or move it away"
            )
    return targets


def _mask(module: Any, tested: Sequence[int], image: Path, pixels: Any, progress: Callable[[int, int], None]) -> Any:
    """Return the classes (H, W) of the pixels (C, H, W) of an image. Raises ValueError, naming it, where the network does not
    take it. tested: the greatest height and width of the run's images."""
    try:
        return module.predict(pixels, progress, tested)
    except (ValueError, RuntimeError) as error:
        sizes = ["x".join(map(str, size)) for size in (pixels.shape[1:], tested)]
        raise ValueError(
            f"{image}, {sizes[0]} pixels, cannot be predicted ({one_line(str(error))}); "
            f"the run's own images are {sizes[1]} at most"
        ) from error


def _objects(module: Any, image: Path, batch: Any) -> dict[str, Any]:
    """Return the prediction of a batch of one image, on the CPU. Raises ValueError, naming it, where the network does not take
    it."""
    on_device = [{name: value.to(module.device) for name, value in one.items()} for one in batch.targets]
    try:
        [prediction] = module.detect(batch.images.to(module.device), on_device)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{image} cannot be predicted ({one_line(str(error))})") from error
    return {name: value.cpu() for name, value in prediction.items()}


def _image_id(image: Path) -> int | str:
    """Return the number that is an image's name before the dot, as in COCO's files, or else that name."""
    return int(image.stem) if image.stem.isdecimal() else image.stem


def _write_masks(
    read: Callable[..., Any],
    predict: Callable[..., Any],
    targets: Mapping[Path, Path],
    data: Mapping[str, Any],
    grey_range: Any,
    bars: Progress,
) -> None:
    import numpy as np
    import tifffile
    from PIL import Image

    levels = (np.arange(data["num_classes"]) * 255 // (data["num_classes"] - 1)).astype(np.uint8)
    for image, target in bars.track(targets.items(), description="images"):
        masks = []
        if (found := read(image, data["in_channels"], grey_range)) is None:
            continue
        slices, remark = found
        if remark:
            print(remark, file=sys.stderr)
        for number, pixels in enumerate(slices, start=1):
            tiles = bars.add_task(f"{image.name} {number}/{len(slices)}", total=None)
            mask = predict(
                image, pixels, lambda done, total, task=tiles: bars.update(task, completed=done, total=total)
            )
            bars.remove_task(tiles)
            if mask is None:
                break
            masks.append(levels[mask.cpu().numpy()])
        if len(masks) < len(slices):
            continue
        if target.suffix == ".tif":
            tifffile.imwrite(target, np.stack(masks), photometric="minisblack", compression="zlib")
        else:
            Image.fromarray(masks[0]).save(target)
        print(target)


def _write_classes(
    module: Any,
    read: Callable[..., Any],
    images: Sequence[Path],
    data: Mapping[str, Any],
    names: Sequence[str],
    path: Path,
    bars: Progress,
) -> None:
    """Print each image's most probable class; write the probabilities of all classes to ``path``, a row for each image."""
    import torch

    rows: list[list[str]] = []
    for image in bars.track(images, description="images"):
        if (pixels := read(image, [data["in_channels"], *data["image_size"]])) is None:
            continue
        with torch.no_grad():
            logits = module(pixels[None].to(module.device))
        probabilities, best = module.probabilities(logits)[0].tolist(), int(logits.argmax())
        rows.append([str(image), names[best], *(f"{value:.6f}" for value in probabilities)])
        print(f"{image}: {names[best]} ({100 * probabilities[best]:.1f} %)")
    if rows:
        path.write_text(csv_text([["image", "class", *names], *rows]), encoding="utf-8", newline="")
        print(path)


def _write_objects(
    datamodule: Any,
    read: Callable[..., Any],
    detect: Callable[..., Any],
    targets: Mapping[Path, Path],
    data: Mapping[str, Any],
    dataset: Mapping[str, Any],
    path: Path,
    bars: Progress,
) -> None:
    """Write a drawing of each image, targets[image], and at last the results of all into ``path``.

    dataset: that of the record.
    """
    results: list[dict[str, Any]] = []
    count = turned = 0
    classes = dataset["classes"]
    category_ids = dataset.get("category_ids") or list(range(1, len(classes) + 1))
    for image, target in bars.track(targets.items(), description="images"):
        if (known := read(image, data["in_channels"])) is None:
            continue
        batch, pixels, remark = known
        if (prediction := detect(image, batch)) is None:
            continue
        count, turned = count + 1, turned + datamodule.is_turned(image)
        if remark:
            print(remark, file=sys.stderr)
        results += datamodule.results(prediction, _image_id(image), category_ids)
        drawing(pixels, {name: value.numpy() for name, value in prediction.items()}, classes).save(target)
        print(target)
    if turned:
        print(
            f"{turned} of {count} images were turned as their camera noted (EXIF): results are in pixels of the turned image",
            file=sys.stderr,
        )
    if count:
        write_atomic(path, json.dumps(results) + "\n")
        print(path)


def check_memory(net: Any, channels: int, legal: int, tile: int) -> None:
    """Raises ValueError for a tile that does not fit into the free memory, naming the largest that does.

    The need is taken as the bytes of all activations, measured at the side ``legal`` and scaled by area. The peak of an
    unpadded or padded U-Net was 55 to 83 % of that (base_channels 8 to 32, 572 to 1,148 pixels, torch 2.13 on a CPU).
    """
    import torch

    from benchmarks.complexity.counting import check_image_size, measure

    if torch.cuda.is_available():
        free: float = torch.cuda.mem_get_info()[0]
    else:  # what a process may still take, as Linux estimates it in kB; elsewhere no bound is known
        free = 1024 * float((linux_says("meminfo", "MemAvailable") or "inf").split()[0])
    at_legal = 4 * measure(net, (channels, legal, legal)).activations  # float32
    need = at_legal * (tile / legal) ** 2
    if need <= free:
        return
    fits = int(legal * (free / at_legal) ** 0.5)
    while fits > 0:
        try:
            check_image_size(net, fits, fits)
            break
        except ValueError:
            fits -= 1
    raise ValueError(f"a tile of {tile} needs up to {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: {fits} fits")
