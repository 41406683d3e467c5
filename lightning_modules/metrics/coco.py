"""COCO's average precision and recall, of boxes and of masks (Lin et al., ECCV 2014; the rules are those of the evaluation
server's program, COCOeval of cocodataset/cocoapi).

Detections are matched to objects image by image, while predictions are there, so no mask is kept. What remains of a detection
is its score, place and class and 80 bits: 48 bytes. Processes gather these tables, so any number of them with any number of
images each gives the same digits.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of intersection over union
RECALLS = np.linspace(0.0, 1.0, 101)
# Least and most area in pixels, both included: of all objects, small, medium and large ones.
AREAS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])
MAX_DETECTIONS = (1, 10, 100)  # of one class in one image
_BITS = 1 << np.arange(len(THRESHOLDS) * len(AREAS))
_SMALLEST = np.finfo(np.float64).tiny

Kind = Literal["box", "mask"]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Window = tuple[slice, slice]  # rows and columns
NOWHERE: Window = (slice(0, 0), slice(0, 0))  # of an empty mask


class CocoAP(Metric):
    """AP, AP50, AP75, AP by area and AR of COCO, fractions; NaN where no object is of that area.

    A class without objects is left out of the means. Detections of equal score rank by image, then by their order in it.

    Args:
        num_classes: K of labels 0..K-1.
        kind: "box" or "mask", what is compared.
        options: of torchmetrics.Metric.

    Raises:
        ValueError: another kind.
    """

    definitions = {
        "ap": "COCO AP: mean over classes, IoU 0.50, 0.55, …, 0.95 and 101 recalls of the interpolated precision, a fraction",
        "ap50": "ap at IoU 0.50 alone",
        "ap75": "ap at IoU 0.75 alone",
        "ap_small": "ap of objects of up to 32 x 32 pixels",
        "ap_medium": "ap of objects of 32 x 32 to 96 x 96 pixels",
        "ap_large": "ap of objects from 96 x 96 pixels",
        "ar1": "COCO AR: mean over classes and IoUs of the recall at most 1 detection of a class in an image, a fraction",
        "ar10": "the same with 10 detections",
        "ar100": "the same with 100 detections",
        "ar_small": "ar100 of objects of up to 32 x 32 pixels",
        "ar_medium": "ar100 of objects of 32 x 32 to 96 x 96 pixels",
        "ar_large": "ar100 of objects from 96 x 96 pixels",
    }
    detections: list[Tensor]
    marks: list[Tensor]
    objects: Tensor

    def __init__(self, num_classes: int, kind: Kind, **options: Any) -> None:
        super().__init__(**options)
        if kind not in ("box", "mask"):
            raise ValueError(f"kind must be box or mask, got {kind!r}")
        self.num_classes = num_classes
        self.kind = kind
        # float64 [n, 4]: score, image, place in the image, class. int64 [n, 2]: bits of matched and of ignored.
        self.add_state("detections", default=[], dist_reduce_fx="cat")
        self.add_state("marks", default=[], dist_reduce_fx="cat")
        self.add_state("objects", torch.zeros(num_classes, len(AREAS), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[Mapping[str, Tensor]], targets: Sequence[Mapping[str, Tensor]]) -> None:
        """Add images.

        predictions: of each image scores [d], labels int64 [d], and boxes [d, 4] (x0, y0, x1, y1) or masks [d, h, w]; objects
        that do not overlap may have a map [h, w] of their numbers 1, 2, … instead of masks.
        targets: of each image its number in the split (image), labels int64 [n], boxes, masks or map; and where they are known
        crowd, bool [n], a region of uncounted objects, and area [n] in pixels, which decides what is small.
        """
        for prediction, target in zip(predictions, targets, strict=True):
            self._add(_arrays(prediction), _arrays(target))

    def _add(self, prediction: dict[str, np.ndarray], target: dict[str, np.ndarray]) -> None:
        # A table of no rows is added too: a rank without any would not take part when lists are gathered.
        tables, marks = [np.zeros((0, 4))], [np.zeros((0, 2), np.int64)]
        found, true = (_Shapes.of(shapes, self.kind) for shapes in (prediction, target))
        scores, labels = prediction["scores"].astype(np.float64), prediction["labels"]
        crowd = target.get("crowd", np.zeros(len(true), bool)).astype(bool)
        areas = target.get("area", true.areas).astype(np.float64)
        for label in np.union1d(labels, target["labels"]):
            rows, columns = np.flatnonzero(labels == label), np.flatnonzero(target["labels"] == label)
            rows = rows[np.argsort(-scores[rows], kind="stable")][: MAX_DETECTIONS[-1]]
            ignored = crowd[columns] | _outside(areas[columns])
            overlaps = found.overlaps(rows, true, columns, crowd[columns])
            matched, skipped = match(overlaps, crowd[columns], ignored)
            skipped |= ~matched & _outside(found.areas[rows])
            self.objects[int(label)] += torch.from_numpy((~ignored).sum(1)).to(self.objects.device)
            count = len(rows)
            image, places = np.full(count, target["image"]), np.arange(count)
            tables.append(np.stack([scores[rows], image, places, np.full(count, label)], 1).astype(np.float64))
            marks.append(np.stack([_BITS @ bits.reshape(len(_BITS), count) for bits in (matched, skipped)], 1))
        self.detections.append(torch.from_numpy(np.concatenate(tables)).to(self.objects.device))
        self.marks.append(torch.from_numpy(np.concatenate(marks)).to(self.objects.device))

    def compute(self) -> dict[str, Tensor]:
        """Return the scores by name, float64."""
        rows, marks = np.zeros((0, 4)), np.zeros((0, 2), np.int64)
        if len(self.detections):
            rows, marks = (dim_zero_cat(state).cpu().numpy() for state in (self.detections, self.marks))
        order = np.lexsort((rows[:, 2], rows[:, 1], -rows[:, 0]))
        rows, marks = rows[order], marks[order]
        objects = self.objects.cpu().numpy()
        by_class = []
        for label in range(self.num_classes):
            own = rows[:, 3] == label
            matched, skipped = ((marks[own, column, None] & _BITS) > 0 for column in (0, 1))
            by_class.append(curves(rows[own, 2], matched, skipped, objects[label]))
        precision, recall = (np.stack(parts, -1) for parts in zip(*by_class, strict=True))
        values = {
            "ap": precision[:, 0],
            "ap50": precision[0, 0],
            "ap75": precision[5, 0],
            **{f"ap_{name}": precision[:, area] for area, name in enumerate(("small", "medium", "large"), start=1)},
            **{f"ar{most}": recall[:, 0, column] for column, most in enumerate(MAX_DETECTIONS)},
            **{f"ar_{name}": recall[:, area, -1] for area, name in enumerate(("small", "medium", "large"), start=1)},
        }
        return {name: torch.tensor(_mean(value), dtype=torch.float64) for name, value in values.items()}


def match(overlaps: Floats, crowd: Bools, ignored: Bools) -> tuple[Bools, Bools]:
    """Match detections, the best score first, to objects, at every threshold and for every range of areas.

    A detection takes the free object that it overlaps most, of equal ones the last; only where none that counts reaches the
    threshold, an ignored one. A crowd is never used up.

    Args:
        overlaps: [D, G].
        crowd: [G].
        ignored: [A, G], objects that do not count in that range of areas.

    Returns:
        bool [T, A, D] each: detections that have an object, and those of them whose object is ignored.
    """
    count, objects = overlaps.shape
    matched, skipped = np.zeros((2, len(THRESHOLDS), len(ignored), count), bool)
    taken = np.zeros((len(THRESHOLDS), len(ignored), objects), bool)
    least = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None, None]
    for detection in np.flatnonzero(overlaps.max(1, initial=0) >= THRESHOLDS[0]):
        overlap = overlaps[detection]
        free = (~taken | crowd) & (overlap >= least)
        for kind in (~ignored, ignored):
            candidates = free & kind
            best = objects - 1 - np.where(candidates, overlap, -1.0)[..., ::-1].argmax(-1)
            new = candidates.any(-1) & ~matched[..., detection]
            threshold, area = np.nonzero(new)
            column = best[threshold, area]
            matched[threshold, area, detection] = taken[threshold, area, column] = True
            skipped[threshold, area, detection] = ignored[area, column]
    return matched, skipped


def curves(places: Floats, matched: Bools, skipped: Bools, objects: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return the interpolated precision [T, A, R] and the greatest recall [T, A, M] of one class; NaN where it has no object.

    Args:
        places: [n], of each detection in its image; all are in the order of their scores.
        matched, skipped: [n, T * A], of each detection.
        objects: [A], how many count.
    """
    shape = (len(THRESHOLDS), len(AREAS))
    precision, recall = np.full((*shape, len(RECALLS)), np.nan), np.full((*shape, len(MAX_DETECTIONS)), np.nan)
    for column, most in enumerate(MAX_DETECTIONS):
        hits, ignored = (bits[places < most].T.reshape(*shape, -1) for bits in (matched, skipped))
        true, false = (np.cumsum(kind & ~ignored, -1, dtype=np.float64) for kind in (hits, ~hits))
        for threshold, area in np.ndindex(shape):
            if not objects[area]:
                continue
            reached = true[threshold, area] / objects[area]
            recall[threshold, area, column] = reached[-1] if len(reached) else 0
            if most == MAX_DETECTIONS[-1]:
                correct, wrong = true[threshold, area], false[threshold, area]
                exact = correct / (correct + wrong + np.spacing(1))
                highest = np.append(np.maximum.accumulate(exact[::-1])[::-1], 0)
                precision[threshold, area] = highest[np.searchsorted(reached, RECALLS, side="left")]
    return precision, recall


class _Shapes(NamedTuple):
    """What detections or objects of one image are compared by. boxes: float64 [n, 4]; or crops: each within its window."""

    areas: Floats
    boxes: Floats
    windows: list[Window]
    crops: list[Bools]

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], kind: Kind) -> "_Shapes":
        if kind == "box":
            boxes = arrays["boxes"].astype(np.float64).reshape(-1, 4)
            return cls(np.prod(boxes[:, 2:] - boxes[:, :2], 1), boxes, [], [])
        if "map" in arrays:
            windows = ndimage.find_objects(arrays["map"])
            crops = [arrays["map"][window] == number for number, window in enumerate(windows, start=1)]
        else:
            masks = arrays["masks"] != 0
            windows = [(ndimage.find_objects(mask.view(np.uint8)) or [NOWHERE])[0] for mask in masks]
            crops = [mask[window] for mask, window in zip(masks, windows, strict=True)]
        edges = [[columns.start, rows.start, columns.stop, rows.stop] for rows, columns in windows]
        areas = np.array([np.count_nonzero(crop) for crop in crops], np.float64)
        return cls(areas, np.array(edges, np.float64).reshape(-1, 4), windows, crops)

    def __len__(self) -> int:
        return len(self.areas)

    def overlaps(self, rows: NDArray[np.int64], others: "_Shapes", columns: NDArray[np.int64], crowd: Bools) -> Floats:
        """Return intersection over union [D, G] of some with some others; over the detection's own area for a crowd."""
        own, other = self.boxes[rows, None], others.boxes[None, columns]
        sides = np.minimum(own[..., 2:], other[..., 2:]) - np.maximum(own[..., :2], other[..., :2])
        intersection = sides.clip(0).prod(-1)
        if self.windows:
            for row, column in np.argwhere(intersection > 0):
                intersection[row, column] = self._common_pixels(int(rows[row]), others, int(columns[column]))
        areas = self.areas[rows, None]
        return intersection / np.maximum(
            np.where(crowd, areas, areas + others.areas[columns] - intersection), _SMALLEST
        )

    def _common_pixels(self, row: int, others: "_Shapes", column: int) -> int:
        parts = []
        for window, crop, other in (
            (self.windows[row], self.crops[row], others.windows[column]),
            (others.windows[column], others.crops[column], self.windows[row]),
        ):
            starts = [max(one.start, two.start) - one.start for one, two in zip(window, other, strict=True)]
            stops = [min(one.stop, two.stop) - one.start for one, two in zip(window, other, strict=True)]
            parts.append(crop[starts[0] : stops[0], starts[1] : stops[1]])
        return int(np.count_nonzero(parts[0] & parts[1]))


def _outside(areas: Floats) -> Bools:
    """Return whether each area [n] is outside of each range, [A, n]."""
    return (areas < AREAS[:, :1]) | (areas > AREAS[:, 1:])


def _arrays(values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().numpy() for name, value in values.items()}


def _mean(values: Floats) -> float:
    """Return the mean of what is not NaN, NaN of nothing."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
