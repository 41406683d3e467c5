"""COCO's AP against pycocotools, hand-computed values, and several processes."""

import contextlib
import io
import math

import numpy as np
import pytest
import torch
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.forked_ranks import answers_of_ranks

from lightning_modules.metrics.coco import CocoAP

NAMES = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"),
)
SIDE = 150


def reference(predictions, targets, kind, num_classes):
    """The twelve figures of pycocotools, NaN for its -1."""
    annotations, results = [], []
    for target in targets:
        for row in range(len(target["labels"])):
            annotation = {
                "id": len(annotations) + 1,  # COCOeval takes the id 0 for "no object"
                "image_id": int(target["image"]),
                "category_id": int(target["labels"][row]),
                "area": float(target["area"][row]),
                "iscrowd": int(target["crowd"][row]),
                **shape(target, row, kind),
            }
            annotations.append(annotation)
    for target, prediction in zip(targets, predictions, strict=True):
        for row in range(len(prediction["labels"])):
            result = {
                "image_id": int(target["image"]),
                "category_id": int(prediction["labels"][row]),
                "score": float(prediction["scores"][row]),
                **shape(prediction, row, kind),
            }
            results.append(result)
    truth = COCO()
    truth.dataset = {
        "images": [{"id": int(target["image"]), "height": SIDE, "width": SIDE} for target in targets],
        "annotations": annotations,
        "categories": [{"id": number} for number in range(num_classes)],
        "info": {},
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        if results:
            found = truth.loadRes(results)
        else:  # loadRes looks at the first result
            found = COCO()
            found.dataset = truth.dataset | {"annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, {"box": "bbox", "mask": "segm"}[kind])
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: math.nan if value == -1 else value for name, value in zip(NAMES, evaluation.stats, strict=True)}


def shape(objects, row, kind):
    if kind == "mask":
        return {"segmentation": rle.encode(np.asfortranarray(objects["masks"][row].numpy().astype(np.uint8)))}
    x0, y0, x1, y1 = objects["boxes"][row].double().tolist()
    return {"bbox": [x0, y0, x1 - x0, y1 - y0]}


def scene(random, image, num_classes, objects, detections):
    """Boxes or ellipses in them; detections are shifted objects, some of another class, or anywhere. Scores have ties."""
    true_boxes = boxes_at_random(random, objects)
    chosen = random.randint(objects, size=detections) if objects else np.zeros(0, int)
    boxes = boxes_at_random(random, detections)
    labels = random.randint(num_classes, size=objects)
    found_labels = random.randint(num_classes, size=detections)
    if objects:
        near = random.uniform(size=detections) < 0.7
        shifted = np.rint(true_boxes[chosen] + random.normal(0, 3, (detections, 4))).clip(0, SIDE)
        good = near & (shifted[:, 2:] > shifted[:, :2]).all(1)
        boxes[good] = shifted[good]
        found_labels[near] = labels[chosen][near]
    scores = np.round(random.uniform(size=detections), 1)
    target = {
        "boxes": torch.tensor(true_boxes),
        "labels": torch.tensor(labels),
        "masks": ellipses(true_boxes),
        "image": torch.tensor(image),
        "crowd": torch.tensor(random.uniform(size=objects) < 0.15),
        "area": torch.tensor(np.prod(true_boxes[:, 2:] - true_boxes[:, :2], 1) * random.uniform(0.5, 1, objects)),
    }
    order = np.argsort(-scores, kind="stable")
    prediction = {
        "boxes": torch.tensor(boxes[order]),
        "labels": torch.tensor(found_labels[order]),
        "masks": ellipses(boxes[order]),
        "scores": torch.tensor(scores[order]),
    }
    return prediction, target


def boxes_at_random(random, count):
    sides = np.rint(np.exp(random.uniform(np.log(4), np.log(SIDE), (count, 2))))
    corner = np.rint(random.uniform(size=(count, 2)) * (SIDE - sides))
    return np.concatenate([corner, corner + sides], 1)


def ellipses(boxes):
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    masks = [
        ((x - (x0 + x1) / 2) / (x1 - x0)) ** 2 + ((y - (y0 + y1) / 2) / (y1 - y0)) ** 2 <= 0.25
        for x0, y0, x1, y1 in boxes
    ]
    return torch.tensor(np.array(masks, np.uint8).reshape(-1, SIDE, SIDE))


def scenes(seed, images=6, num_classes=3, most_objects=8, most_detections=16):
    random = np.random.RandomState(seed)
    pairs = [
        scene(random, image, num_classes, random.randint(most_objects + 1), random.randint(most_detections + 1))
        for image in range(images)
    ]
    return [prediction for prediction, _ in pairs], [target for _, target in pairs]


def score(predictions, targets, kind, num_classes=3):
    metric = CocoAP(num_classes, kind)
    for prediction, target in zip(predictions, targets, strict=True):
        metric.update([prediction], [target])
    return {name: float(value) for name, value in metric.compute().items()}


def compare(predictions, targets, kind, num_classes=3):
    expected = reference(predictions, targets, kind, num_classes)
    assert score(predictions, targets, kind, num_classes) == pytest.approx(expected, abs=1e-12, nan_ok=True)
    return expected


@pytest.mark.parametrize("kind", ["box", "mask"])
@pytest.mark.parametrize("seed", range(6))
def test_equals_pycocotools_on_random_scenes(seed, kind):
    expected = compare(*scenes(seed, num_classes=(1, 3, 5)[seed % 3]), kind, num_classes=(1, 3, 5)[seed % 3])
    assert 0 < expected["ap"] < 1


def test_equals_pycocotools_beyond_100_detections_of_a_class():
    predictions, targets = scenes(7, images=3, num_classes=1, most_objects=30)
    random = np.random.RandomState(0)
    predictions = [scene(random, image, 1, 0, 130)[0] for image in range(3)]
    for prediction, target in zip(predictions, targets, strict=True):
        prediction["boxes"][97 : 97 + len(target["boxes"])] = target["boxes"]  # perfect, but most beyond place 100
    expected = compare(predictions, targets, "box", 1)
    metric = CocoAP(1, "box")
    metric.update(predictions, targets)
    assert sum(map(len, metric.detections)) == 300
    assert 0 < expected["ar100"] < 1


def change(targets, **values):
    return [target | {name: value(target) for name, value in values.items()} for target in targets]


DEGENERATE = {
    "no detections": lambda p, t: ([{k: v[:0] for k, v in each.items()} for each in p], t),
    "no objects": lambda p, t: (p, [{k: v[:0] if k != "image" else v for k, v in each.items()} for each in t]),
    "crowds alone": lambda p, t: (p, change(t, crowd=lambda each: torch.ones_like(each["crowd"]))),
    "nothing small or medium": lambda p, t: (p, change(t, area=lambda each: torch.full_like(each["area"], 1e5))),
    "areas at the limits": lambda p, t: (p, change(t, area=lambda each: torch.full_like(each["area"], 32.0**2))),
    "boxes of no area": lambda p, t: ([each | {"boxes": each["boxes"][:, [0, 1, 0, 3]]} for each in p], t),
    "empty masks": lambda p, t: ([each | {"masks": 0 * each["masks"]} for each in p], t),
    "empty true masks": lambda p, t: (p, change(t, masks=lambda each: 0 * each["masks"])),
    "one score": lambda p, t: ([each | {"scores": 0 * each["scores"] + 0.5} for each in p], t),
    "one class alone": lambda p, t: (p, change(t, labels=lambda each: 0 * each["labels"] + 2)),
    "the same object twice": lambda p, t: (
        p,
        [{k: torch.cat([v, v]) if k != "image" else v for k, v in each.items()} for each in t],
    ),
}


@pytest.mark.parametrize("kind", ["box", "mask"])
@pytest.mark.parametrize("case", DEGENERATE)
def test_equals_pycocotools_on_degenerate_scenes(case, kind):
    predictions, targets = DEGENERATE[case](*scenes(11, images=4))
    compare(predictions, targets, kind)


def one_image(found, scores, true, **known):
    """Boxes of one class in image 0."""
    prediction = {
        "boxes": torch.tensor(found, dtype=torch.float64).view(-1, 4),
        "scores": torch.tensor(scores),
        "labels": torch.zeros(len(scores), dtype=torch.int64),
    }
    target = {
        "boxes": torch.tensor(true, dtype=torch.float64).view(-1, 4),
        "labels": torch.zeros(len(true), dtype=torch.int64),
        "image": torch.tensor(0),
    }
    return [prediction], [target | {name: torch.tensor(value) for name, value in known.items()}]


def test_hand_computed_precision():
    """Two objects; hit, miss, hit: precision 1 up to recall 1/2, then 2/3. Of 101 recalls 51 lie at or below 1/2."""
    first, second, nowhere = [0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]
    values = score(*one_image([first, nowhere, second], [0.9, 0.8, 0.7], [first, second]), "box", 1)
    expected = (51 + 50 * 2 / 3) / 101
    assert (values["ap"], values["ap50"]) == pytest.approx((expected, expected), abs=1e-12)
    assert (values["ar1"], values["ar10"]) == (0.5, 1)
    assert values["ap_small"] == values["ap"] and math.isnan(values["ap_medium"]) and math.isnan(values["ar_large"])


def test_hand_computed_overlap():
    """10x10 against 10x8 inside it: IoU 0.8, a hit at 0.50 to 0.80, seven of ten thresholds."""
    values = score(*one_image([[0, 0, 10, 8]], [0.5], [[0, 0, 10, 10]]), "box", 1)
    assert (values["ap50"], values["ap75"]) == pytest.approx((1, 1), abs=1e-12)
    assert (values["ap"], values["ar100"]) == pytest.approx((0.7, 0.7), abs=1e-12)


def test_a_detection_within_a_crowd_counts_neither_way():
    true, crowd = [0, 0, 10, 10], [100, 100, 200, 200]
    found = [[110, 110, 130, 130], [140, 140, 150, 150], true]
    values = score(*one_image(found, [0.9, 0.8, 0.7], [true, crowd], crowd=[False, True]), "box", 1)
    assert values["ap"] == pytest.approx(1, abs=1e-12)
    uncounted = score(*one_image(found, [0.9, 0.8, 0.7], [true, crowd], crowd=[False, False]), "box", 1)
    assert uncounted["ap50"] == pytest.approx(51 / 101 / 3, abs=1e-12)  # the third of three, one object of two


def test_no_mask_is_kept():
    predictions, targets = scenes(3)
    metric = CocoAP(3, "mask")
    metric.update(predictions, targets)
    states = [*metric.detections, *metric.marks, metric.objects]
    assert (
        sum(state.numel() * state.element_size() for state in states)
        == 48 * sum(len(each["scores"]) for each in predictions) + 8 * 3 * 4
    )


def rank_of(rank, world_size):
    predictions, targets = split_of_ranks()
    metrics = {kind: CocoAP(3, kind) for kind in ("box", "mask")}
    rows = range(len(targets) * rank // world_size, len(targets) * (rank + 1) // world_size)
    for row in rows:
        for metric in metrics.values():
            metric.update([predictions[row]], [targets[row]])
    return [{name: float(value) for name, value in metric.compute().items()} for metric in metrics.values()]


def split_of_ranks():
    predictions, targets = scenes(5, images=7)
    for row in range(3):  # all that the first of two ranks sees
        predictions[row] = {name: value[:0] for name, value in predictions[row].items()}
    return predictions, targets


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_same_at_any_number_of_processes(world_size, tmp_path):
    """Shares of 7 images: 3 and 4; 2, 2 and 3. The first rank has no detection at all."""
    values = answers_of_ranks(rank_of, world_size, tmp_path)
    alone = [score(*split_of_ranks(), kind) for kind in ("box", "mask")]
    assert [repr(each) for each in values] == [repr(alone)] * world_size  # to the digit, with NaN where it is NaN


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be box or mask, got 'bbox'"):
        CocoAP(1, "bbox")
