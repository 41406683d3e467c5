"""An annotation file of COCO: images, categories and objects with boxes, and polygons or run lengths as masks.

What is wrong is found when the file is read, before anything is trained, and said in one line with file and annotation.
"""

import json
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.readers import preparation, rle
from datamodules.readers.objects import Objects

LISTS = "images, annotations and categories"
Fail = Callable[[str], ValueError]  # what is wrong with an annotation, to the error that names it
LARGEST = sys.float_info.max  # JSON has integers above it
NO_MASKS: tuple[Any, ...] = (None, [], [[]])  # what programs write as the segmentation of a box


@dataclass(frozen=True, eq=False)
class CocoFile:
    """The annotations of some images, in the order of their ids.

    names: of the image files. sizes: int64 [N, 2], height and width. classes, category_ids: in the order of the ids, which may
    have gaps; a label is the place in it. learnable: bool [N], whether an image has an object to be learned: see targets_of.
    counts: int64 [N], the objects of each image without crowds. masks: whether objects have them. notes: what was left out, and
    why.
    annotations: of all images one behind the other, as JSON, image i's up to byte ends[i]: a loader's workers would copy
    millions of Python objects by counting references to them.
    """

    path: Path
    names: list[str]
    sizes: np.ndarray
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    learnable: np.ndarray
    counts: np.ndarray
    masks: bool
    notes: tuple[str, ...]
    annotations: np.ndarray
    ends: np.ndarray

    def objects(self, image: int) -> Objects:
        """Return the objects of an image in the order of the file."""
        start = int(self.ends[image - 1]) if image else 0
        annotations = json.loads(self.annotations[start : int(self.ends[image])].tobytes())
        height, width = self.sizes[image].tolist()
        boxes = np.array([each["bbox"] for each in annotations], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = None
        if self.masks:
            shapes = [mask_of(each["segmentation"], height, width) for each in annotations]
            masks = np.stack(shapes) if shapes else np.zeros((0, height, width), np.uint8)
        area = np.prod(boxes[:, 2:] - boxes[:, :2], 1) if masks is None else masks.sum((1, 2), dtype=np.int64)
        return Objects(
            boxes=boxes,
            labels=np.searchsorted(self.category_ids, [each["category_id"] for each in annotations]).astype(np.int64),
            area=np.array([each.get("area", own) for each, own in zip(annotations, area, strict=True)], np.float64),
            crowd=np.array([each.get("iscrowd", 0) for each in annotations], bool),
            masks=masks,
        )


def read_coco_file(path: Path) -> CocoFile:
    """Read an annotation file.

    Left out, with a count in the notes: objects whose every polygon has fewer than three points; in training also those with a
    box under a pixel wide or high within the image, which evaluation keeps, as COCO does.
    Raises FileNotFoundError if it is missing. ValueError naming the file, and the annotation where there is one: it is not
    COCO's JSON, ids or files are used twice, an annotation has an unknown image or category, no box, or one that is reversed or
    outside its image, polygons far outside it, an area or iscrowd that is none, or a mask of another size; or some objects have
    a mask and others none. ImportError without pycocotools where there are polygons.
    """
    dataset = _load(path)
    categories = sorted(_by_id(path, dataset, "categories", ("name",)).values(), key=lambda each: each["id"])
    images = sorted(
        _by_id(path, dataset, "images", ("file_name", "height", "width")).values(), key=lambda each: each["id"]
    )
    for category in categories:
        if not isinstance(category["name"], str):
            raise ValueError(f"{path}: the name of category {category['id']} must be a text, got {category['name']!r}")
    for image in images:
        if not isinstance(image["file_name"], str):
            raise ValueError(f"{path}: the file_name of image {image['id']} must be a text, got {image['file_name']!r}")
        if not all(isinstance(image[side], int) and 0 < image[side] < 2**31 for side in ("height", "width")):
            raise ValueError(
                f"{path}: image {image['id']} must have a height and width in pixels, whole numbers from 1, got "
                f"{image['height']!r} and {image['width']!r}"
            )
    sizes = np.array([[each["height"], each["width"]] for each in images], np.int64).reshape(-1, 2)
    by_name: dict[str, int] = {}
    for image in images:
        other = by_name.setdefault(os.path.normpath(image["file_name"]), image["id"])
        if other != image["id"]:
            raise ValueError(
                f"{path}: {image['file_name']} is the file of two images, {other} and {image['id']}, which could lie in two "
                "splits; write it once, with all its annotations"
            )
    rows = {image["id"]: row for row, image in enumerate(images)}
    known = {category["id"] for category in categories}
    every = list(_by_id(path, dataset, "annotations", ("image_id", "category_id")).values())
    masks = any(each.get("segmentation") not in NO_MASKS for each in every)
    by_image: list[list[dict[str, Any]]] = [[] for _ in images]
    learnable = np.zeros(len(images), bool)
    without_points: list[int] = []
    without_extent: list[int] = []
    for annotation in every:
        fail = partial(_failure, path, annotation["id"])
        if not _is_listed(annotation["image_id"], rows):
            raise fail(f"is of image {annotation['image_id']!r}, which the file does not list")
        if not _is_listed(annotation["category_id"], known):
            raise fail(f"is of category {annotation['category_id']!r}, which the file does not list")
        row = rows[annotation["image_id"]]
        height, width = sizes[row].tolist()
        extent = _check_box(annotation.get("bbox"), height, width, fail)
        _check_area_and_crowd(annotation, fail)
        kept: dict[str, Any] = {
            name: annotation[name]
            for name in ("bbox", "category_id", "area", "iscrowd")
            if annotation.get(name) is not None
        }
        if masks:
            shape = _check_mask(annotation.get("segmentation"), height, width, fail)
            if shape is None:
                without_points.append(annotation["id"])
                continue
            kept["segmentation"] = shape
        by_image[row].append(kept)
        if not extent:
            without_extent.append(annotation["id"])
        elif not learnable[row] and not annotation.get("iscrowd"):
            learnable[row] = not masks or _has_pixels(shape, height, width)
    packed = [json.dumps(each).encode() for each in by_image]
    return CocoFile(
        path=path,
        names=[image["file_name"] for image in images],
        sizes=sizes,
        classes=tuple(category["name"] for category in categories),
        category_ids=tuple(category["id"] for category in categories),
        learnable=learnable,
        counts=np.array([sum(not each.get("iscrowd") for each in of_image) for of_image in by_image]),
        masks=masks,
        notes=(
            *_note(path, without_points, "without a polygon of three points left out"),
            *_note(path, without_extent, "with a box under a pixel wide or high within the image left out of training"),
        ),
        annotations=np.frombuffer(b"".join(packed), np.uint8),
        ends=np.cumsum([len(each) for each in packed], dtype=np.int64),
    )


def mask_of(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Return the mask uint8 [height, width] of polygons, or of run lengths as numbers or text."""
    if isinstance(segmentation, Mapping):
        counts = segmentation["counts"]
        return rle.decode(rle.from_text(counts) if isinstance(counts, str) else counts, height, width)
    return _pycocotools().decode(_merged(segmentation, height, width))


def _has_pixels(segmentation: Any, height: int, width: int) -> bool:
    """Return whether a mask has a pixel; of polygons without its bitmap, which takes ten times as long."""
    if isinstance(segmentation, Mapping):
        return bool(mask_of(segmentation, height, width).any())
    return bool(_pycocotools().area(_merged(segmentation, height, width)))


def _merged(polygons: Any, height: int, width: int) -> Any:
    coco = _pycocotools()
    return coco.merge(coco.frPyObjects(polygons, height, width))


def _failure(path: Path, annotation: Any, message: str) -> ValueError:
    return ValueError(f"{path}: annotation {annotation} {message}")


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; put COCO's annotation file there")
    preparation.listener()(f"reading {path.name}", 0, 0)
    try:
        dataset = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); fetch or write it again") from error
    if isinstance(dataset, list):
        raise ValueError(f"{path} holds a list, as detections are written; annotations are an object with {LISTS}")
    names = ("images", "annotations", "categories")
    if not isinstance(dataset, dict) or not all(isinstance(dataset.get(name), list) for name in names):
        raise ValueError(f"{path} is not COCO's JSON: it must be an object with the lists {LISTS}")
    for name in ("images", "categories"):
        if not dataset[name]:
            raise ValueError(f"{path} lists no {name}")
    return dataset


def _by_id(path: Path, dataset: Mapping[str, Any], kind: str, fields: Sequence[str]) -> dict[int, dict[str, Any]]:
    """Return the items of a list by id. Raises ValueError if one has not these fields, or the id of another."""
    items: dict[int, dict[str, Any]] = {}
    for place, item in enumerate(dataset[kind]):
        missing = [name for name in ("id", *fields) if not isinstance(item, dict) or name not in item]
        if missing:
            raise ValueError(f"{path}: {kind}[{place}] has no {missing[0]}; it needs {', '.join(('id', *fields))}")
        if not isinstance(item["id"], int):
            raise ValueError(f"{path}: the id of {kind}[{place}] must be a whole number, got {item['id']!r}")
        if item["id"] in items:
            raise ValueError(f"{path}: the id {item['id']} is used twice among {kind}")
        items[item["id"]] = item
    return items


def _is_listed(value: Any, ids: Collection[int]) -> bool:
    return not isinstance(value, list | dict) and value in ids


def _check_area_and_crowd(annotation: Mapping[str, Any], fail: Fail) -> None:
    area, crowd = annotation.get("area"), annotation.get("iscrowd")
    if area is not None and not (isinstance(area, int | float) and 0 <= area <= LARGEST):
        raise fail(f"has the area {area!r}; write a number of pixels, or leave it out")
    if crowd is not None and crowd not in (0, 1):
        raise fail(f"must have an iscrowd of 0, one object, or 1, a region of many, got {crowd!r}")


def _check_box(box: Any, height: int, width: int, fail: Fail) -> bool:
    """Return whether a box x, y, width, height is at least a pixel wide and high within the image."""
    if box is None:
        raise fail("has no bbox; write the box around its mask, [x, y, width, height]")
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(each, int | float) for each in box):
        raise fail(f"must have a bbox [x, y, width, height], got {box!r}")
    x, y, w, h = box
    if not all(abs(each) <= LARGEST for each in box):
        raise fail(f"has a bbox of which a number is not finite, {box}")
    if w < 0 or h < 0:
        raise fail(f"has a reversed bbox, {w} wide and {h} high; the numbers are x, y, width and height")
    if x > width or y > height or x + w < 0 or y + h < 0:
        raise fail(f"has the bbox {box}, outside of its image of {width} x {height} pixels (width x height)")
    return min(x + w, width) - max(x, 0) >= 1 and min(y + h, height) - max(y, 0) >= 1


def _check_mask(segmentation: Any, height: int, width: int, fail: Fail) -> Any:
    """Return the segmentation without polygons of fewer than three points, None if no other is left."""
    if segmentation is None:
        raise fail(
            "has no segmentation, and others have one; complete it, or leave it out of all to train without masks"
        )
    if isinstance(segmentation, dict):
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if size != [height, width]:
            raise fail(f"has a mask of size {size}, its image is {[height, width]} (height, width)")
        try:
            if not isinstance(counts, str | list):
                raise ValueError("its counts must be a list of numbers or text")
            rle.decode(rle.from_text(counts) if isinstance(counts, str) else counts, height, width)
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            raise fail(f"has a damaged run-length mask: {error}") from error
        return segmentation
    if not isinstance(segmentation, list):
        raise fail(f"must have polygons or run lengths as segmentation, got {type(segmentation).__name__}")
    for polygon in segmentation:
        if not isinstance(polygon, list) or not all(isinstance(each, int | float) for each in polygon):
            raise fail("must have polygons [x, y, x, y, …], lists of numbers")
        if len(polygon) % 2:
            raise fail(f"has a polygon of {len(polygon)} numbers, x and y of every point are an even number")
        if polygon and not (_lie_near(polygon[::2], width) and _lie_near(polygon[1::2], height)):
            raise fail(
                f"has a polygon with a point that is not finite or far outside of its image of {width} x {height} pixels "
                "(width x height)"
            )
    _pycocotools()
    return [polygon for polygon in segmentation if len(polygon) >= 6] or None


def _lie_near(places: Sequence[float], length: int) -> bool:
    """Whether places along a side are finite, and in the image or at most its length beside it. pycocotools walks along every
    edge, and takes all memory for an endless one."""
    return -length <= min(places) and max(places) <= 2 * length and isfinite(sum(places))  # NaN is in the sum


def _note(path: Path, annotations: Sequence[int], what: str) -> list[str]:
    if not annotations:
        return []
    return [f"{path.name}: {len(annotations)} annotations {what} (first: annotation {annotations[0]})"]


def _pycocotools() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ImportError('polygons of COCO files need pycocotools: pip install -e ".[coco]"') from error
    return mask
